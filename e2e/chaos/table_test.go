//go:build e2e

package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// tally is what a run has measured.
type tally struct {
	began              time.Time
	commit             string
	rounds, seed       int
	acknowledged, lost int
	recovered, silent  []time.Duration
}

// newTally notes what is about to be measured.
func newTally(ctx context.Context, rounds, seed int) tally {
	y := tally{began: time.Now(), commit: "unknown", rounds: rounds, seed: seed}
	if out, err := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output(); err == nil {
		y.commit = strings.TrimSpace(string(out))
	}
	return y
}

func (y *tally) add(recovered, silent time.Duration) {
	y.recovered = append(y.recovered, recovered)
	y.silent = append(y.silent, silent)
}

// percentile returns the smallest of the times that p percent do not exceed.
func percentile(times []time.Duration, p int) float64 {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[(len(sorted)*p+99)/100-1].Seconds()
}

func (y *tally) print(t *testing.T) {
	t.Logf("%d rounds, SEED=%d: %d deploys acknowledged, %d lost; recovered after %.1fs (median), %.1fs (99 %%); apps unanswered for %.1fs, %.1fs",
		y.rounds, y.seed, y.acknowledged, y.lost,
		percentile(y.recovered, 50), percentile(y.recovered, 99), percentile(y.silent, 50), percentile(y.silent, 99))
}

const tableHead = `# Chaos

In each round a deploy is disturbed by ` + "`kill -9`" + ` at a random moment: of the
machine's process, of containerd, of both together (then somebody types
` + "`emerald up`" + `), or of a battery's process. Afterwards every app must be what
the last acknowledged deploy made it, the next deploy must work, and nothing
half-made may stay. Written by ` + "`make chaos`" + `; repeat a run with its seed:
` + "`make chaos ROUNDS=100 SEED=1`" + `.

*Recovered* is from the kill until every battery is ready and every app serves
again what was acknowledged; *unanswered* is from the kill until the last request
to any app that stayed without its answer.

| date | commit | rounds | seed | deploys acknowledged | lost | recovered, median | 99 % | unanswered, median | 99 % |
|--|--|--|--|--|--|--|--|--|--|
`

// write adds a line to the table in a file, which it makes when there is none.
func (y *tally) write(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = []byte(tableHead), nil
	}
	if err != nil {
		return err
	}
	line := fmt.Sprintf("| %s | %s | %d | %d | %d | %d | %.1f s | %.1f s | %.1f s | %.1f s |\n",
		y.began.UTC().Format(time.DateOnly), y.commit, y.rounds, y.seed, y.acknowledged, y.lost,
		percentile(y.recovered, 50), percentile(y.recovered, 99), percentile(y.silent, 50), percentile(y.silent, 99))
	return os.WriteFile(path, append(text, line...), 0o644)
}
