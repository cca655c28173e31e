package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace that lives as long as its file: processes
// may come and go.
type namespace struct{ path string }

// newNamespace makes a network namespace whose loopback is up, kept at path.
func newNamespace(path string) (*namespace, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o400)
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	f.Close()
	if err := onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if err := bringUpLoopback(); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	}); err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return &namespace{path}, nil
}

func bringUpLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring up the loopback: %w", err)
	}
	return nil
}

// do runs f on a thread inside the namespace.
func (n *namespace) do(f func() error) error {
	return onOwnThread(func() error {
		ns, err := os.Open(n.path)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace %s: %w", n.path, err)
		}
		return f()
	})
}

// onOwnThread runs f on a thread that nothing else ever runs on, so that f may
// change the thread's namespace.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Without an unlock the thread ends with its goroutine.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end, and is the one that the kernel shows
			// as the process's: leave it alone. While this goroutine holds it,
			// another one gets another.
			done <- onOwnThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}

// start starts a command inside the namespace. Only the network is another
// one: entering by `ip netns exec` would hide the host's control groups.
func (n *namespace) start(cmd *exec.Cmd) error { return n.do(cmd.Start) }

// dial connects from inside the namespace.
func (n *namespace) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = n.do(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// processes returns every process that runs in the namespace.
func (n *namespace) processes() ([]int, error) {
	var want unix.Stat_t
	if err := unix.Stat(n.path, &want); err != nil {
		return nil, fmt.Errorf("look at the network namespace: %w", err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		var have unix.Stat_t
		// A process that has just ended is none of ours.
		if pid != os.Getpid() && unix.Stat(filepath.Join("/proc", e.Name(), "ns/net"), &have) == nil && have.Ino == want.Ino && have.Dev == want.Dev {
			out = append(out, pid)
		}
	}
	return out, nil
}

// remove lets the namespace go; it vanishes with its last process.
func (n *namespace) remove() error {
	if err := unix.Unmount(n.path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("let go of the network namespace: %w", err)
	}
	if err := os.Remove(n.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// mountsUnder returns the mount points below dir, deepest first.
func mountsUnder(dir string) ([]string, error) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.HasPrefix(fields[4]+"/", dir+"/") {
			out = append([]string{unescapeMount(fields[4])}, out...)
		}
	}
	return out, nil
}

// unescapeMount undoes the octal escapes of proc_pid_mountinfo(5).
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
