//go:build e2e

// Package wipe checks that `emerald down --wipe` leaves a host as it was, after
// a good life and after a crash.
package wipe

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emerald-platform/emerald/e2e/fixture"
	"github.com/emerald-platform/emerald/platform/wipe"
)

func TestWipe(t *testing.T) {
	tests := []struct {
		reason string
		before func(t *testing.T, m *fixture.Machine)
	}{
		{reason: "after a good life, trusted by the host", before: func(_ *testing.T, m *fixture.Machine) { m.Emerald("trust") }},
		{reason: "after down", before: func(_ *testing.T, m *fixture.Machine) { m.Emerald("down") }},
		{reason: "after the machine and its runtime were killed", before: kill},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			m := fixture.New(t)
			before := snapshot(t, m)
			m.Emerald(append([]string{"up"}, m.UpFlags()...)...)
			m.Eventually("the node is ready", 10*time.Second, m.NodeReady)
			tt.before(t, m)
			m.Emerald("down", "--wipe", "--yes")
			for _, link := range logLinks(t, m) {
				t.Errorf("differs after the wipe: + link %s", link)
			}
			for _, line := range wipe.Diff(before, snapshot(t, m)) {
				t.Errorf("differs after the wipe: %s", line)
			}
		})
	}
}

// snapshot looks at the host from the machine's network.
func snapshot(t *testing.T, m *fixture.Machine) (s wipe.Snapshot) {
	t.Helper()
	err := m.Do(func() (err error) {
		s, err = wipe.Take(wipe.Scope{
			Files: []string{m.Dirs.Data, m.Dirs.Run, m.Home, "/etc", "/run", "/opt", "/var/lib", "/root/.kube"},
			// Machines of other labs, the host's own and apt may be at work here.
			Except:  []string{"/run/emlab", "/var/lib/cni", "/var/lib/apt", "/var/lib/dpkg", "/run/emerald", "/var/lib/emerald", "/root/.kube"},
			Cgroups: []string{m.CgroupRoot()},
			Mounts:  []string{m.Dirs.Data, m.Dirs.Run},
			// Of the kernel's settings those of the network are the machine's own.
			Settings: []string{"net"},
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// logLinks returns the links that the kubelet has put into the host's log
// directory for pods of this machine.
func logLinks(t *testing.T, m *fixture.Machine) []string {
	links, err := filepath.Glob("/var/log/containers/*.log")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(links, func(link string) bool {
		target, err := os.Readlink(link)
		return err != nil || !strings.HasPrefix(target, m.Dirs.Data)
	})
}

// kill ends the machine's process and its container runtime together, so that
// neither brings back the other.
func kill(_ *testing.T, m *fixture.Machine) {
	m.KillProcess("machine.lock")
	m.KillProcess("containerd.lock")
}
