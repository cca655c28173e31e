package lab

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// TestClaim has many take one number and give it back, as labs do that come and
// go at once: never have two of them the same.
func TestClaim(t *testing.T) {
	run := filepath.Join(t.TempDir(), "1")
	var owners, claims atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 2000 {
				l := &Lab{run: run}
				ok, err := l.claim()
				if err != nil {
					t.Error(err)
					return
				}
				if !ok {
					continue
				}
				claims.Add(1)
				if n := owners.Add(1); n != 1 {
					t.Errorf("%d labs have one number", n)
				}
				owners.Add(-1)
				if err := os.Remove(run + ".lock"); err != nil {
					t.Error(err)
				}
				l.lock.Close()
			}
		})
	}
	all.Wait()
	if claims.Load() == 0 {
		t.Error("nobody got the number")
	}
}
