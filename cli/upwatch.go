package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/machine"
)

const (
	// patienceStep is how often something is asked again that tells nobody when
	// it changes.
	patienceStep = 20 * time.Millisecond
	// enough is how many failed starts in a row are enough to stop watching.
	enough = 3
	// goneFor is how long nobody may be the machine before it counts as gone:
	// what brings it back does so within a second or two. A machine that did
	// not say a word may still be on its way, on a slow disk.
	goneFor, silentFor = 4 * time.Second, 30 * time.Second
)

// upWatch watches a machine come up. Its process may die and come back
// meanwhile: who watches sees it go on.
type upWatch struct {
	env  *env
	dirs dirs.Dirs
	view *stepView

	pid    int       // the process that was last seen
	lives  int       // how many processes were seen
	tries  int       // the failed starts that were told about
	reason string    // of the last of them
	gone   time.Time // since when nobody is the machine
}

// wait shows the machine's steps as they happen and returns when all are done.
func (w *upWatch) wait(ctx context.Context) (machine.State, error) {
	revision := int64(-1)
	for {
		state, err := machine.Follow(ctx, w.dirs, revision)
		switch {
		case ctx.Err() != nil:
			return state, w.unfinished(ctx)
		case machine.Stopped(w.dirs):
			return state, errors.New(`boot the platform: "emerald down" was called meanwhile: start it again with: emerald up`)
		case err == nil:
			if revision = state.Revision; w.pid != state.PID {
				w.pid, w.lives, revision = state.PID, w.lives+1, -1
			}
			w.gone = time.Time{}
			w.view.show(state)
			if state.Ready {
				return state, nil
			}
			if err := w.failed(state.Failure); err != nil {
				return state, err
			}
		case !errors.Is(err, machine.ErrDown):
			return state, err
		default:
			revision = -1
			if err := w.away(ctx); err != nil {
				return state, err
			}
			if machine.Pause(ctx, patienceStep) != nil {
				return state, w.unfinished(ctx)
			}
		}
	}
}

// failed tells about a failed start, and returns an error when there were
// enough of them.
func (w *upWatch) failed(f *machine.Failure) error {
	if f == nil || f.Tries == w.tries {
		return nil
	}
	w.tries = f.Tries
	reason := strings.ReplaceAll(f.Reason, "\n", "; ")
	if f.Tries >= enough {
		return fmt.Errorf("boot the platform: %s\nThis happened %d times, and is tried again in the background. Mend it and run again: emerald up, "+
			"or give up with: emerald down. Its log: %s", reason, f.Tries, machine.LogHint(w.dirs))
	}
	note := fmt.Sprintf("the platform stopped, and starts again in %s", time.Until(f.Again).Round(time.Second))
	if reason != w.reason {
		note += ": " + reason
	}
	w.view.note(note)
	w.reason = reason
	return nil
}

// away is called while nothing answers: the process is on its way, dying or
// gone. It returns an error when that does not mend itself.
func (w *upWatch) away(ctx context.Context) error {
	if pid := machine.PID(w.dirs); pid != 0 {
		w.gone = time.Time{}
		if pid == w.pid {
			return nil
		}
		if w.pid != 0 {
			w.view.note(fmt.Sprintf("the platform's process died and is back%s", because(machine.LastWords(ctx, w.dirs))))
		}
		if w.pid, w.lives = pid, w.lives+1; w.lives <= enough {
			return nil
		}
		return fmt.Errorf("boot the platform: its process died %d times while starting%s: its log: %s",
			w.lives-1, because(machine.LastWords(ctx, w.dirs)), machine.LogHint(w.dirs))
	}
	if w.gone.IsZero() {
		w.gone = time.Now()
	}
	reason := machine.LastWords(ctx, w.dirs)
	if away := time.Since(w.gone); away < goneFor || (reason == "" && away < silentFor) {
		return nil
	}
	return fmt.Errorf("boot the platform: its process ended%s: its log: %s", because(reason), machine.LogHint(w.dirs))
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// unfinished says what was waited for when the waiting ended.
func (w *upWatch) unfinished(ctx context.Context) error {
	const look = "see how far it is with: emerald status, wait again with: emerald up, stop it with: emerald down"
	if errors.Is(ctx.Err(), context.Canceled) {
		return exitError{code: 130, err: fmt.Errorf("stopped waiting; the platform goes on starting: %s", look)}
	}
	for _, s := range w.view.last.Steps {
		if !s.Done {
			reason := s.Waits
			if s.Error != "" {
				reason = s.Error
			}
			return fmt.Errorf("boot the platform: %s is not ready in time%s; it goes on starting: %s; its log: %s", s.Name, because(reason), look, machine.LogHint(w.dirs))
		}
	}
	return fmt.Errorf("boot the platform: it did not answer in time: its log: %s", machine.LogHint(w.dirs))
}
