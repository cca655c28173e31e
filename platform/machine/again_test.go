package machine

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPauseBefore(t *testing.T) {
	var got []time.Duration
	for tries := 1; tries <= 7; tries++ {
		got = append(got, pauseBefore(tries))
	}
	want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, longestPause, longestPause}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pauses, -want +got:\n%s", diff)
	}
}

func TestTakeTries(t *testing.T) {
	for value, want := range map[string]int{"": 0, "3": 3, "-1": 0, "many": 0} {
		t.Setenv(triesVariable, value)
		if got := takeTries(); got != want {
			t.Errorf("%s=%q: got %d, want %d", triesVariable, value, got, want)
		}
		if _, set := os.LookupEnv(triesVariable); set {
			t.Errorf("%s is left for the processes that this one starts", triesVariable)
		}
	}
}

func TestStartAgain(t *testing.T) {
	cause := errors.New("no room")
	tests := map[string]struct {
		reason string
		tries  int
		began  time.Time
		want   int
	}{
		"first":      {"it failed once", 0, time.Now(), 1},
		"in a row":   {"failures add up", 2, time.Now(), 3},
		"after long": {"one that lived begins to count anew", 7, time.Now().Add(-2 * lived), 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := &machine{Options: Options{Log: slog.New(slog.DiscardHandler)}, board: newBoard("v1", "", "a"), tries: tt.tries}
			m.board.done("a")
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // nobody waits for the pause
			if err := m.startAgain(ctx, cause, tt.began); err != nil {
				t.Fatalf("told to stop, it returns %v, want nil", err)
			}
			state := m.board.after(t.Context(), -1)
			if state.Ready || state.Failure == nil || state.Failure.Tries != tt.want || state.Failure.Reason != cause.Error() {
				t.Errorf("%s: ready %v, failure %+v, want %d tries", tt.reason, state.Ready, state.Failure, tt.want)
			}
		})
	}
}

func TestAgainReturnsOtherErrors(t *testing.T) {
	cause := errors.New("no room")
	if err := Again(cause); err != cause {
		t.Errorf("got %v, want %v", err, cause)
	}
	if err := Again(nil); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

// How long a machine took to come up does not grow when a battery starts anew.
func TestTook(t *testing.T) {
	b := newBoard("v1", "", "a", "b")
	b.done("a")
	if s := b.after(t.Context(), -1); s.Took != 0 || s.Ready {
		t.Errorf("before all is done: ready %v after %v", s.Ready, s.Took)
	}
	b.done("b")
	first := b.after(t.Context(), -1)
	if first.Took <= 0 || !first.Ready {
		t.Fatalf("all is done: ready %v after %v", first.Ready, first.Took)
	}
	b.began = b.began.Add(-time.Hour)
	b.update("b", func(s *Step) { s.Done = false })
	b.done("b")
	again := b.after(t.Context(), -1)
	if again.Took != first.Took {
		t.Errorf("took %v, then %v", first.Took, again.Took)
	}
	if again.Steps[1].Seconds > 60 {
		t.Errorf("the step took %vs, which counts from its first time", again.Steps[1].Seconds)
	}
}
