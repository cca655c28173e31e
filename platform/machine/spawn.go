package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/emerald-platform/emerald/platform/dirs"
)

// Command is the hidden command that becomes the machine.
const Command = "machine"

// Spawn starts the machine's process in a session of its own, detached from
// the caller, and returns its process ID without waiting for anything. A
// second machine ends by itself at once, so Spawn may be called at any time.
func Spawn(d dirs.Dirs) (int, error) {
	if err := os.MkdirAll(d.InData("log"), 0o700); err != nil {
		return 0, fmt.Errorf("make the log directory: %w", err)
	}
	log, err := os.OpenFile(LogFile(d), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, fmt.Errorf("open the log: %w", err)
	}
	defer log.Close()
	self, err := executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, Command)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "EMERALD_DATA="+d.Data, "EMERALD_RUN="+d.Run)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the machine's process: %w", err)
	}
	go func() { _ = cmd.Wait() }() // no zombie while the caller lives
	return cmd.Process.Pid, nil
}

// executable returns the program's path, also when a newer build has replaced
// the file this process was started from.
func executable() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	const replaced = " (deleted)"
	if n := len(self) - len(replaced); n > 0 && self[n:] == replaced {
		self = self[:n]
	}
	return self, nil
}

// Stop tells the machine's process to end and to stay away, and returns once
// it is gone. Containers keep running. It kills the process when it has not
// ended after grace.
func Stop(ctx context.Context, d dirs.Dirs, grace time.Duration) error {
	if err := markStopped(d); err != nil {
		return fmt.Errorf("record that the platform shall be down: %w", err)
	}
	return Halt(ctx, d, grace)
}

// Halt ends the machine's process, which whoever watches over it may start
// again: how a new version of the program takes over.
func Halt(ctx context.Context, d dirs.Dirs, grace time.Duration) error {
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		pid := PID(d)
		if pid == 0 {
			return nil
		}
		if err := unix.Kill(pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end process %d: %w", pid, err)
		}
		wait, cancel := context.WithTimeout(ctx, grace)
		err := waitUnlocked(wait, d)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return fmt.Errorf("process %d does not end: see its log: %s", PID(d), LogHint(d))
}
