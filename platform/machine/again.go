package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// The parts of the machine can start once in a process only: upstream keeps
// much of its state in package variables. So a machine that ends with an error
// waits and then becomes a new program in the same process, with the same
// process ID: nobody else has to be alive to bring it back.

// triesVariable carries the number of failed starts in a row from one life of
// the process to the next.
const triesVariable = "EMERALD_TRIES"

const (
	// lived is how long a machine has to live for its next failure to count as
	// a first one.
	lived = time.Minute
	// longestPause is the longest wait between two tries.
	longestPause = 30 * time.Second
)

// Failure is why the parts of a machine ended, and when they start again.
type Failure struct {
	Reason string `json:"reason"`
	// Tries is how many starts in a row have failed.
	Tries int       `json:"tries"`
	Again time.Time `json:"again"`
}

// errAgain asks the caller of [Run] to call [Again].
var errAgain = errors.New("the machine starts again")

// takeTries returns how many starts have failed before this one, and hides the
// count from the processes that this one starts.
func takeTries() int {
	tries, err := strconv.Atoi(os.Getenv(triesVariable))
	if err != nil || tries < 0 {
		tries = 0
	}
	// Unsetting a variable that has a name cannot fail.
	_ = os.Unsetenv(triesVariable)
	return tries
}

// pauseBefore returns how long to wait before the next start.
func pauseBefore(tries int) time.Duration {
	pause := restartPause
	for range tries - 1 {
		pause = min(2*pause, longestPause)
	}
	return pause
}

// startAgain tells whoever follows the state what went wrong, and returns errAgain
// when it is time to start again, nil when ctx ends first.
func (m *machine) startAgain(ctx context.Context, err error, began time.Time) error {
	if time.Since(began) > lived {
		m.tries = 0
	}
	m.tries++
	pause := pauseBefore(m.tries)
	m.Log.Error("the machine stops and starts again", "error", err, "tries", m.tries, "pause", pause)
	m.board.fail(Failure{Reason: err.Error(), Tries: m.tries, Again: time.Now().Add(pause)})
	if Pause(ctx, pause) != nil {
		return nil
	}
	if err := os.Setenv(triesVariable, strconv.Itoa(m.tries)); err != nil {
		return fmt.Errorf("count the tries: %w", err)
	}
	return errAgain
}

// Again makes this process a new machine when err, from [Run], asks for that,
// and does not return then. Any other err it returns as it is.
func Again(err error) error {
	if !errors.Is(err, errAgain) {
		return err
	}
	self, err := executable()
	if err != nil {
		return err
	}
	return fmt.Errorf("start %s again: %w", self, syscall.Exec(self, os.Args, os.Environ()))
}
