// Package lab runs machines of the platform on one host, each in a network
// namespace, directories and a cgroup of its own, so that tests and people can
// try what one machine or many do without touching the host's own Emerald.
//
// It promises to leave the host as it was, also after a crash: everything it
// makes carries its name, and the next lab removes what a dead one left.
//
// It refuses to run without root, which namespaces need.
package lab

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

// isolated marks the process that runs in a network namespace of its own.
const isolated = "EMERALD_LAB_ISOLATED"

// Isolate runs a package's tests in a process with a network namespace of its
// own, whose loopback carries the given addresses too. It is called by TestMain
// and does not return. Without root the tests are not run, and say so.
func Isolate(m *testing.M, addresses ...string) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "SKIP: these tests make network namespaces, which takes root")
		os.Exit(0)
	}
	if os.Getenv(isolated) != "" {
		if err := bringUpLoopback(addresses); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	// The kernel gives a namespace to a thread: a new process is the only way
	// to have every thread of a Go program in it.
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolated+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		if exit, ok := err.(*exec.ExitError); ok && exit.ExitCode() > 0 {
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintln(os.Stderr, "run the tests in a network namespace:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func bringUpLoopback(addresses []string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring up the loopback: %w", err)
	}
	for _, a := range addresses {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return fmt.Errorf("add address %q: %w", a, err)
		}
		if err := netlink.AddrAdd(lo, addr); err != nil {
			return fmt.Errorf("add address %q: %w", a, err)
		}
	}
	return nil
}
