package cgroup_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/emerald-platform/emerald/platform/cgroup"
)

func TestTree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make cgroups")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tree := cgroup.Tree{Root: "/emerald-test-" + strconv.Itoa(os.Getpid()) + "/nested"}
	defer func() {
		if err := errors.Join(tree.Kill(ctx, ""), tree.Remove(ctx)); err != nil {
			t.Error(err)
		}
	}()
	for range 2 {
		if err := tree.Create(cgroup.Runtime); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := tree.Join(cgroup.Runtime, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	for sub, want := range map[string]bool{"": true, cgroup.Runtime: true, "elsewhere": false} {
		pids, err := tree.Processes(sub)
		if err != nil || slices.Contains(pids, cmd.Process.Pid) != want {
			t.Errorf("processes below %q: %v %v, want %v: %v", sub, pids, err, cmd.Process.Pid, want)
		}
	}
	if err := tree.Kill(ctx, ""); err != nil {
		t.Fatal(err)
	}
	<-ended
	for range 2 {
		if err := tree.Remove(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if tree.Exists() || (cgroup.Tree{Root: "/emerald-test-" + strconv.Itoa(os.Getpid())}).Exists() {
		t.Error("the tree is still there")
	}
}

func TestRefusesWhatIsNotOurs(t *testing.T) {
	for _, root := range []string{"", "/", "emerald", "/emerald/", "/emerald/../x"} {
		tree := cgroup.Tree{Root: root}
		if tree.Create("") == nil || tree.Join("x", 1) == nil || tree.Remove(t.Context()) == nil {
			t.Errorf("root %q was accepted", root)
		}
	}
}
