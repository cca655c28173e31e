// Package isolated runs a package's tests in network and mount namespaces of
// their own, so that tests that make links, routes, rules and mounts can
// neither touch the host nor leave anything on it. Tests use it from TestMain.
//
// Invariant: a test that got past [Require] is not in the host's namespaces.
package isolated

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/emerald-platform/emerald/platform/cgroup"
	"github.com/emerald-platform/emerald/platform/dirs"
)

// inside marks the process that runs in the namespaces.
const inside = "EMERALD_TEST_ISOLATED"

// Program is another program that the test binary is as well, for code that runs
// its own program again.
type Program struct {
	Name string // the first argument
	Run  func(ctx context.Context, args []string) error
}

// Main runs the tests of m in fresh namespaces and ends the process. Without
// root it runs them where they are, and those that [Require] the namespaces are
// skipped. Called as one of the programs it runs that instead.
func Main(m *testing.M, programs ...Program) {
	for _, p := range programs {
		if len(os.Args) > 1 && os.Args[1] == p.Name {
			if err := p.Run(context.Background(), os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	switch {
	case os.Getenv(inside) != "":
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		// Tests that enter other namespaces do so on threads of their own; the
		// first thread, which /proc/self speaks of, must not be one of them.
		runtime.LockOSThread()
		os.Exit(m.Run())
	case os.Geteuid() != 0:
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	var failed *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &failed):
		os.Exit(max(failed.ExitCode(), 1))
	}
	fmt.Fprintln(os.Stderr, "run the tests in namespaces of their own:", err)
	os.Exit(1)
}

// prepare makes the namespaces usable: mounts stay inside, and there is a
// loopback and something that looks like an uplink.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts inside: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("start the loopback: %w", err)
	}
	return nil
}

// Require skips the test where it can't be kept apart from the host.
func Require(t testing.TB) {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Skip("needs root, to make network and mount namespaces of its own")
	}
}

// Dirs returns the directories of a machine of the test's own. What is mounted
// below them is unmounted when the test ends.
func Dirs(t testing.TB) dirs.Dirs {
	t.Helper()
	// t.TempDir is too long for sockets.
	root, err := os.MkdirTemp("", "em")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeAll(root); err != nil {
			t.Error(err)
		}
	})
	return dirs.Dirs{Data: filepath.Join(root, "d"), Run: filepath.Join(root, "r")}
}

func removeAll(root string) error {
	for range 1000 {
		mounts, err := mountsBelow(root)
		if err != nil {
			return err
		}
		if len(mounts) == 0 {
			break
		}
		for _, m := range mounts {
			_ = unix.Unmount(m, unix.MNT_DETACH)
		}
	}
	return os.RemoveAll(root)
}

func mountsBelow(root string) ([]string, error) {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		// proc(5) writes a space in a path as \040.
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], root+"/") {
			out = append(out, strings.ReplaceAll(f[1], `\040`, " "))
		}
	}
	slices.Reverse(out)
	return out, nil
}

// Cgroups returns a tree of the test's own, which is emptied and removed when
// the test ends.
func Cgroups(t testing.TB) cgroup.Tree {
	t.Helper()
	tree := cgroup.Tree{Root: "/emerald-test-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := errors.Join(tree.Kill(ctx, ""), tree.Remove(ctx)); err != nil {
			t.Error(err)
		}
	})
	return tree
}

// NetNS makes a network namespace with a loopback, which lives until the test
// ends, and returns its path.
func NetNS(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	made := make(chan error, 1)
	go func() {
		// Never unlocked: the thread dies with its namespace.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}
		if err == nil {
			var lo netlink.Link
			if lo, err = netlink.LinkByName("lo"); err == nil {
				err = netlink.LinkSetUp(lo)
			}
		}
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	return path
}
