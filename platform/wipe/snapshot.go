package wipe

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/emerald-platform/emerald/kit/netdump"
)

// Scope says what a [Snapshot] looks at besides the network namespace of the
// calling process.
type Scope struct {
	// Files are the directories whose files count, by path. What is in Except
	// does not.
	Files, Except []string
	// Cgroups, Mounts and Settings say which of them count, by the paths they
	// are at or below; empty means all. On a host that others use, what they do
	// meanwhile would count, too. Settings are below /proc/sys.
	Cgroups, Mounts, Settings []string
}

// counts reports whether path is in the scope.
func counts(scope []string, path string) bool {
	return len(scope) == 0 || slices.ContainsFunc(scope, func(p string) bool { return below(path, p) })
}

// Snapshot is what a machine can leave on a host, each trace as a line of text:
// mounts, links, addresses, routes, nftables, cgroups, processes, kernel
// settings of the network, files.
type Snapshot map[string]bool

// Take looks at the host. Processes count when they are in the caller's network
// namespace, so that a machine in a lab is not blamed for its neighbours.
func Take(s Scope) (Snapshot, error) {
	out := Snapshot{}
	var errs []error
	for _, take := range []func(Snapshot) error{s.takeMounts, takeNetwork, takeTables, s.takeCgroups, takeProcesses, s.takeSettings, s.takeFiles} {
		errs = append(errs, take(out))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("take a snapshot of the host: %w", err)
	}
	return out, nil
}

// Diff returns what is in after but not in before ("+ …") and the other way
// round ("- …"), sorted.
func Diff(before, after Snapshot) []string {
	var out []string
	for line := range after {
		if !before[line] {
			out = append(out, "+ "+line)
		}
	}
	for line := range before {
		if !after[line] {
			out = append(out, "- "+line)
		}
	}
	slices.Sort(out)
	return out
}

func (s Snapshot) add(kind string, parts ...any) {
	s[kind+" "+strings.TrimSpace(fmt.Sprintln(parts...))] = true
}

func (s Scope) takeMounts(out Snapshot) error {
	data, err := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 2 && counts(s.Mounts, f[1]) {
			out.add("mount", f[1], f[2])
		}
	}
	return err
}

func takeNetwork(out Snapshot) error {
	links, err := netdump.Whole(netlink.LinkList)
	if err != nil {
		return err
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		out.add("link", l.Attrs().Name, l.Type())
	}
	addrs, err := netdump.Whole(func() ([]netlink.Addr, error) {
		return netlink.AddrList(nil, netlink.FAMILY_ALL)
	})
	if err != nil {
		return err
	}
	for _, a := range addrs {
		out.add("address", a.IPNet, names[a.LinkIndex])
	}
	// Of every table, the kernel's local one included.
	routes, err := netdump.Whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return err
	}
	for _, r := range routes {
		out.add("route", r.Dst, "via", r.Gw, names[r.LinkIndex], "table", r.Table)
	}
	rules, err := netdump.Whole(func() ([]netlink.Rule, error) {
		return netlink.RuleList(netlink.FAMILY_ALL)
	})
	if err != nil {
		return err
	}
	for _, r := range rules {
		out.add("rule", r.String())
	}
	return nil
}

func takeTables(out Snapshot) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return err
	}
	for _, t := range tables {
		out.add("nftables", t.Family, t.Name)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return err
	}
	for _, c := range chains {
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return err
		}
		out.add("nftables", c.Table.Family, c.Table.Name, c.Name, len(rules), "rules")
	}
	return nil
}

func (s Scope) takeCgroups(out Snapshot) error {
	mounts, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if err != nil {
		return err
	}
	roots := []string{"/sys/fs/cgroup"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		roots = nil
		for _, m := range mounts {
			roots = append(roots, filepath.Dir(m))
		}
	}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return nil // it comes and goes as others like
			}
			name := strings.TrimPrefix(path, root)
			if counts(s.Cgroups, name) {
				out.add("cgroup", filepath.Base(root), name)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func takeProcesses(out Snapshot) error {
	mine, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name()[0] < '0' || e.Name()[0] > '9' {
			continue
		}
		ns, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns/net"))
		if err != nil || ns != mine {
			continue
		}
		args, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || len(args) == 0 { // gone, or of the kernel
			continue
		}
		out.add("process", e.Name(), string(bytes.ReplaceAll(bytes.TrimRight(args, "\x00"), []byte{0}, []byte{' '})))
	}
	return nil
}

func (s Scope) takeSettings(out Snapshot) error {
	for _, root := range []string{"/proc/sys/net/ipv4", "/proc/sys/net/ipv6", "/proc/sys/net/netfilter", "/proc/sys/vm", "/proc/sys/kernel"} {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return nil
			}
			// Those that count or measure change by themselves.
			switch filepath.Base(path) {
			case "nf_conntrack_count", "uuid", "ns_last_pid", "pty", "nr", "random", "file-nr", "entropy_avail", "perf_cpu_time_max_percent", "perf_event_max_sample_rate":
				return nil
			}
			name := strings.TrimPrefix(path, "/proc/sys/")
			if !counts(s.Settings, name) {
				return nil
			}
			if value, err := os.ReadFile(path); err == nil {
				out.add("setting", name, "=", strings.TrimSpace(string(value)))
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (s Scope) takeFiles(out Snapshot) error {
	for _, root := range s.Files {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return nil
			}
			if slices.Contains(s.Except, path) {
				if e.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
			out.add("file", path)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
