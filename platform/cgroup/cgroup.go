// Package cgroup manages one machine's part of the kernel's cgroup hierarchies:
// a subtree of the same name in every hierarchy, v1, v2 or both.
//
// It promises that everything it makes is under the tree's root, and that
// Remove leaves none of it. It refuses to touch the kernel's root cgroup.
//
// Invariant: on v2 a cgroup that hands controllers to its children holds no
// process itself, so processes join leaves only.
package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultRoot is the tree of a machine that was not told otherwise.
const DefaultRoot = "/emerald"

// Leaves that processes join. Pods are under "kubepods", made by the kubelet.
const (
	// Machine holds the machine process.
	Machine = "machine"
	// Runtime holds containerd and the parents of all containers.
	Runtime = "runtime"
)

// Tree is one machine's subtree. The zero value is useless; a Tree is never
// modified and safe for concurrent use.
type Tree struct {
	// Root is the subtree's path within each hierarchy, absolute, for example
	// "/emerald".
	Root string
}

// hierarchy is one mounted cgroup file system.
type hierarchy struct {
	mount   string
	unified bool
	cpuset  bool
}

// hierarchies lists what is mounted. A hierarchy mounted several times is
// listed once, by its first mount.
func hierarchies() ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list cgroup mounts: %w", err)
	}
	defer f.Close()
	var out []hierarchy
	seen := map[string]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// proc(5): … major:minor root mountpoint options … - fstype source super-options
		left, right, ok := strings.Cut(lines.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 || (r[0] != "cgroup" && r[0] != "cgroup2") || seen[l[2]] {
			continue
		}
		seen[l[2]] = true
		out = append(out, hierarchy{
			mount:   l[4],
			unified: r[0] == "cgroup2",
			cpuset:  r[0] == "cgroup" && slices.Contains(strings.Split(r[2], ","), "cpuset"),
		})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("list cgroup mounts: %w", err)
	}
	if len(out) == 0 {
		return nil, errors.New("list cgroup mounts: none; mount cgroup2 on /sys/fs/cgroup")
	}
	return out, nil
}

// Unified reports whether the only hierarchy is cgroup v2.
func Unified() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// check refuses roots that are not ours to manage.
func (t Tree) check() error {
	if !filepath.IsAbs(t.Root) || filepath.Clean(t.Root) != t.Root || t.Root == "/" {
		return fmt.Errorf("cgroup root %q: want a clean absolute path below /", t.Root)
	}
	return nil
}

// Create makes the root and, below it, leaf (which may be "") in every
// hierarchy, and hands every available controller down to the root's children.
// It may be called again at any time.
func (t Tree) Create(leaf string) error {
	if err := t.check(); err != nil {
		return err
	}
	hs, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hs {
		if err := h.create(t.Root, leaf); err != nil {
			return err
		}
	}
	return nil
}

func (h hierarchy) create(root, leaf string) error {
	dir := h.mount
	for _, name := range strings.Split(strings.Trim(root, "/"), "/") {
		if h.unified {
			if err := delegate(dir); err != nil {
				return err
			}
		}
		dir = filepath.Join(dir, name)
		if err := h.mkdir(dir); err != nil {
			return err
		}
	}
	if h.unified {
		if err := delegate(dir); err != nil {
			return err
		}
	}
	if leaf == "" {
		return nil
	}
	return h.mkdir(filepath.Join(dir, leaf))
}

func (h hierarchy) mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make cgroup: %w", err)
	}
	if !h.cpuset {
		return nil
	}
	// A new v1 cpuset allows nothing, and a process can't join it before it
	// allows something.
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return fmt.Errorf("read cgroup: %w", err)
		}
		if strings.TrimSpace(string(have)) != "" {
			continue
		}
		inherit, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
		if err != nil {
			return fmt.Errorf("read cgroup: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), inherit, 0); err != nil {
			return fmt.Errorf("set up cgroup: %w", err)
		}
	}
	return nil
}

// delegate hands every controller of a v2 cgroup to its children.
func delegate(dir string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read cgroup: %w", err)
	}
	for _, c := range strings.Fields(string(have)) {
		// One by one: a controller that can't be handed down (cpu while a
		// realtime process exists) must not keep the others back.
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
	return nil
}

// Join moves the process pid into leaf, which Create made.
func (t Tree) Join(leaf string, pid int) error {
	if err := t.check(); err != nil {
		return err
	}
	hs, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hs {
		file := filepath.Join(h.mount, t.Root, leaf, "cgroup.procs")
		if err := os.WriteFile(file, []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("join cgroup %s: %w", t.Root+"/"+leaf, err)
		}
	}
	return nil
}

// Processes lists the processes anywhere below the part of the tree named by
// sub ("" is the whole tree), each once, in no order.
func (t Tree) Processes(sub string) ([]int, error) {
	hs, err := hierarchies()
	if err != nil {
		return nil, err
	}
	set := map[int]bool{}
	for _, h := range hs {
		err := filepath.WalkDir(filepath.Join(h.mount, t.Root, sub), func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return ignoreGone(err)
			}
			data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			for _, field := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
					set[pid] = true
				}
			}
			return ignoreGone(err)
		})
		if err != nil {
			return nil, fmt.Errorf("list processes of cgroup %s: %w", t.Root, err)
		}
	}
	pids := make([]int, 0, len(set))
	for pid := range set {
		pids = append(pids, pid)
	}
	return pids, nil
}

// ignoreGone drops the errors of a cgroup that vanished while it was read.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Kill kills every process below sub except the caller, and waits until they
// are gone or ctx ends. Processes that keep appearing are killed again.
func (t Tree) Kill(ctx context.Context, sub string) error {
	for {
		pids, err := t.Processes(sub)
		if err != nil {
			return err
		}
		pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == os.Getpid() || isZombie(pid) })
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill process %d of cgroup %s: %w", pid, t.Root, err)
			}
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("kill processes %v of cgroup %s: %w", pids, t.Root, err)
		}
	}
}

// isZombie reports whether pid is dead and only waits for its parent to notice.
func isZombie(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

// pause waits for the kernel between two looks at the same thing.
func pause(ctx context.Context) error {
	t := time.NewTimer(5 * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// Remove deletes the whole tree. Its processes must be gone; the caller itself
// is moved out to the kernel's root cgroup. The kernel frees a cgroup a moment
// after its last process died, so Remove retries until ctx ends.
func (t Tree) Remove(ctx context.Context) error {
	if err := t.check(); err != nil {
		return err
	}
	hs, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hs {
		if err := h.remove(ctx, t.Root); err != nil {
			return err
		}
	}
	return nil
}

func (h hierarchy) remove(ctx context.Context, root string) error {
	for {
		var dirs []string
		err := filepath.WalkDir(filepath.Join(h.mount, root), func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				dirs = append(dirs, path)
			}
			return ignoreGone(err)
		})
		if err != nil {
			return fmt.Errorf("list cgroup %s: %w", root, err)
		}
		var last error
		for _, dir := range slices.Backward(dirs) {
			h.evictSelf(dir)
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				last = fmt.Errorf("remove cgroup %s: %w", dir, err)
			}
		}
		if last == nil {
			break
		}
		if !errors.Is(last, unix.EBUSY) {
			return last
		}
		if err := pause(ctx); err != nil {
			return last
		}
	}
	// Parents of a nested root (a lab's) go when their last machine goes.
	for dir := filepath.Dir(root); dir != "/"; dir = filepath.Dir(dir) {
		if unix.Rmdir(filepath.Join(h.mount, dir)) != nil {
			break
		}
	}
	return nil
}

// evictSelf moves the calling process to the kernel's root cgroup if it is in dir.
func (h hierarchy) evictSelf(dir string) {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err == nil && slices.Contains(strings.Fields(string(data)), strconv.Itoa(os.Getpid())) {
		_ = os.WriteFile(filepath.Join(h.mount, "cgroup.procs"), []byte("0"), 0)
	}
}

// Exists reports whether any hierarchy has the tree's root.
func (t Tree) Exists() bool {
	hs, err := hierarchies()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(hs, func(h hierarchy) bool {
		_, err := os.Stat(filepath.Join(h.mount, t.Root))
		return err == nil
	})
}
