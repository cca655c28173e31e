package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/emerald-platform/emerald/platform/dirs"
)

// The lock says who is the machine: one process holds it for as long as it
// lives, the kernel lets go of it however the process ends, and its content is
// the holder's process ID.

// ErrRunning means that another process is the machine already.
var ErrRunning = errors.New("emerald is running already")

func lockPath(d dirs.Dirs) string { return d.InRun("machine.lock") }

// lockPatience is how long a new machine waits for the lock: one that has just
// ended, or somebody who looks whether it has, lets go within moments.
const lockPatience = 2 * time.Second

// takeLock makes this process the machine. The returned file must stay open.
func takeLock(ctx context.Context, d dirs.Dirs) (*os.File, error) {
	if err := os.MkdirAll(d.Run, 0o755); err != nil {
		return nil, fmt.Errorf("make the run directory: %w", err)
	}
	f, err := os.OpenFile(lockPath(d), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	deadline := time.Now().Add(lockPatience)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if time.Now().After(deadline) {
			f.Close()
			return nil, fmt.Errorf("%w as process %d: see it with: emerald status", ErrRunning, PID(d))
		}
		if err := Pause(ctx, 5*time.Millisecond); err != nil {
			f.Close()
			return nil, err
		}
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, fmt.Errorf("write the lock: %w", err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("write the lock: %w", err)
	}
	return f, nil
}

// PID returns the process that is the machine now, 0 when none is.
func PID(d dirs.Dirs) int {
	f, err := os.Open(lockPath(d))
	if err != nil {
		return 0
	}
	defer f.Close()
	// A shared lock is had at once unless somebody is the machine; closing the
	// file lets go of it, and takeLock has patience with that moment.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		return 0
	}
	raw, err := os.ReadFile(lockPath(d))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return 0
	}
	return pid
}

// waitUnlocked returns nil once no process is the machine, or ctx's error.
func waitUnlocked(ctx context.Context, d dirs.Dirs) error {
	f, err := os.OpenFile(lockPath(d), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	free := make(chan error, 1)
	go func() {
		// Blocks in the kernel until the holder is gone. Closing the file does
		// not wake it, so an abandoned wait leaves its goroutine behind until
		// the machine ends; its callers end with it or soon after.
		defer f.Close()
		for {
			err := unix.Flock(int(f.Fd()), unix.LOCK_SH)
			if !errors.Is(err, unix.EINTR) {
				free <- err
				return
			}
		}
	}()
	select {
	case err := <-free:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
