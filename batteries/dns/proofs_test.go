package dns

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A server that answers nothing is told after the time of one question.
func TestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(err error) func() error {
			return func() error { <-time.After(settleTime); return err }
		}
		began := time.Now()
		err := atOnce(slow(errors.New("a")), slow(nil), slow(errors.New("b")))
		if err == nil || err.Error() != "a\nb" {
			t.Errorf("got error %v", err)
		}
		if took := time.Since(began); took != settleTime {
			t.Errorf("it took %s", took)
		}
		if err := atOnce(slow(nil)); err != nil {
			t.Errorf("nothing was wrong: %v", err)
		}
	})
}
