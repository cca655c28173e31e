package containers

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// process is a running containerd, child of this process or not.
type process struct {
	pid  int
	fd   int // pidfd: names this process even after its number was given to another
	done chan struct{}
}

// watchChild watches a process that this one started.
func watchChild(cmd *exec.Cmd) *process {
	p := &process{pid: cmd.Process.Pid, fd: -1, done: make(chan struct{})}
	go func() {
		// The exit status says nothing that done does not.
		_ = cmd.Wait()
		close(p.done)
	}()
	return p
}

// watchProcess watches a process of any parent. It returns nil when pid does
// not exist.
func watchProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", pid, err)
	}
	p := &process{pid: pid, fd: fd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(fds, -1); n > 0 || (err != nil && !errors.Is(err, unix.EINTR)) {
				return
			}
		}
	}()
	return p, nil
}

// end asks the process to end, and after grace makes it.
func (p *process) end(ctx context.Context, grace time.Duration) error {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := p.signal(sig); err != nil {
			return fmt.Errorf("end containerd (process %d): %w", p.pid, err)
		}
		select {
		case <-p.done:
			return nil
		case <-time.After(grace):
		case <-ctx.Done():
		}
	}
	return fmt.Errorf("end containerd (process %d): it does not die", p.pid)
}

func (p *process) signal(sig unix.Signal) error {
	var err error
	if p.fd >= 0 {
		err = unix.PidfdSendSignal(p.fd, sig, nil, 0)
	} else {
		err = unix.Kill(p.pid, sig)
	}
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}
