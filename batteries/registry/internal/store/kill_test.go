package store_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/emerald-platform/emerald/batteries/registry/internal/store"
)

// pusherDir is the environment variable that makes this program the one that is
// killed.
const pusherDir = "REGISTRY_TEST_PUSHER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(pusherDir); dir != "" {
		fmt.Fprintln(os.Stderr, pushForever(dir, os.Getenv("REGISTRY_TEST_ROUND")))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// pushForever pushes images and says which are acknowledged, until it is killed.
func pushForever(dir, round string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, store.Options{Root: dir, Log: quiet})
	if err != nil {
		return err
	}
	var g errgroup.Group
	for w := range 4 {
		g.Go(func() error {
			r, err := s.Repo(fmt.Sprintf("demo/r%d", w%2))
			if err != nil {
				return err
			}
			for i := 0; ; i++ {
				tag := fmt.Sprintf("round%s-w%d-%d", round, w, i%7)
				d, err := pushImage(ctx, r, tag, fmt.Sprintf("layer %d", i%5), fmt.Sprintf("%s.%d.%d", round, w, i))
				if err != nil {
					return err
				}
				fmt.Printf("%s:%s %s\n", r.Name(), tag, d)
			}
		})
	}
	g.Go(func() error {
		for {
			if _, err := s.Collect(ctx, store.Retention{Uploads: time.Hour}); err != nil {
				return err
			}
		}
	})
	return g.Wait()
}

// TestKilled kills a registry that pushes and collects, again and again, and
// finds everything whole that it acknowledged.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), pusherDir+"="+dir, fmt.Sprintf("REGISTRY_TEST_ROUND=%d", round))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The moment is random in how much was acknowledged, and in what is
		// under way.
		killAt := 1 + rand.IntN(60)
		acknowledged := map[string]digest.Digest{}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			name, d, ok := strings.Cut(lines.Text(), " ")
			if !ok {
				continue
			}
			acknowledged[name] = digest.Digest(d)
			if n == killAt {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed
		s := open(t, dir)
		newer(t, s, acknowledged)
		whole(t, s, acknowledged)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatalf("round %d, killed after %d acknowledgements", round, len(acknowledged))
		}
	}
}

// newer takes out tags that moved on after the last line that was read: a push
// may be stored before anybody hears of it.
func newer(t *testing.T, s *store.Store, acknowledged map[string]digest.Digest) {
	t.Helper()
	for name, want := range acknowledged {
		repository, tag, _ := strings.Cut(name, ":")
		r := repo(t, s, repository)
		d, err := r.Resolve(context.Background(), tag)
		if err != nil {
			continue // whole will say so
		}
		if d != want {
			if _, err := r.Image(context.Background(), want); err != nil {
				t.Errorf("%s moved on, and what it was acknowledged as is gone: %v", name, err)
			}
			acknowledged[name] = d
		}
	}
}
