// Package wipe takes a machine down, and removes every trace of it.
//
// It promises to touch nothing but what belongs to the machine with the given
// directories and cgroup: other machines on the same host, and whatever else
// runs there, stay as they are. It works after any crash, with half of the
// machine missing, and may be repeated. It ends by looking again, and reports
// what it could not remove.
//
// It refuses to delete below a directory that something is still mounted in:
// that would delete what is mounted.
//
// Invariant: nothing is recognised by its name alone where another program
// could use the same name.
package wipe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/emerald-platform/emerald/kit/netdump"
	"github.com/emerald-platform/emerald/platform/cgroup"
	"github.com/emerald-platform/emerald/platform/containers"
	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/network/datapath"
	"github.com/emerald-platform/emerald/platform/sysctl"
)

// Options tell which machine to take down.
type Options struct {
	Dirs dirs.Dirs
	// CgroupRoot is the machine's [cgroup.Tree]. Empty means
	// [cgroup.DefaultRoot].
	CgroupRoot string
	Log        *slog.Logger
}

// Down stops everything that runs on the machine, containers included, and
// takes back what it changed in the kernel: mounts, links, firewall rules,
// cgroups, settings. Its data stays. The machine process must have ended.
func Down(ctx context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	stopPods(ctx, o)
	err := errors.Join(
		containers.Stop(ctx, o.Dirs),
		killRest(ctx, o),
		unmountAll(o.Dirs),
		disconnect(ctx, o),
		datapath.RemoveTablesNamed(ownTable),
		sysctl.Record{Path: o.Dirs.Sysctls()}.Restore(),
	)
	if (cgroup.Tree{Root: o.CgroupRoot}).Exists() {
		err = errors.Join(err, cgroup.Tree{Root: o.CgroupRoot}.Remove(ctx))
	}
	return err
}

// All does what [Down] does, deletes all data, and then looks for anything that
// is left. What is left is in the error, a [*LeftError] when everything else
// went well.
func All(ctx context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	made := loadFootprint(o.Dirs)
	err := errors.Join(Down(ctx, o), removeOutside(o.Dirs, made))
	mounts, listErr := mountsOf(o.Dirs)
	if listErr != nil || len(mounts) > 0 {
		return errors.Join(err, listErr, fmt.Errorf("delete %s and %s: still mounted: %s; end what uses them and run it again",
			o.Dirs.Data, o.Dirs.Run, strings.Join(mounts, ", ")))
	}
	for _, dir := range []string{o.Dirs.Data, o.Dirs.Run} {
		if removeErr := removeTree(dir); removeErr != nil {
			err = errors.Join(err, fmt.Errorf("delete %s: %w", dir, removeErr))
		}
	}
	if err != nil {
		return err
	}
	return Left(o)
}

// complete fills in the defaults and refuses directories that can't be meant.
func (o *Options) complete() error {
	if o.CgroupRoot == "" {
		o.CgroupRoot = cgroup.DefaultRoot
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for _, dir := range []string{o.Dirs.Data, o.Dirs.Run} {
		if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir || strings.Count(dir, "/") < 2 {
			return fmt.Errorf("take down the machine of %q: want a clean path at least two levels deep", dir)
		}
	}
	return nil
}

// removeTree deletes a directory. Where the administrator mounted a disk in it,
// the disk is emptied and the way to it stays.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil {
		return nil
	}
	if left, leftErr := leftovers(dir); leftErr == nil && len(left) == 0 {
		return nil
	}
	return err
}

// disconnect removes the links of pods: those in the state, and those that a
// lost state forgot. Only one machine can be in a network namespace.
func disconnect(ctx context.Context, o Options) error {
	d := datapath.New(datapath.Config{StateDir: o.Dirs.Network()})
	var errs []error
	if _, err := os.Stat(o.Dirs.Network()); err == nil {
		_, err := d.Collect(ctx, func(*datapath.Attachment) bool { return false })
		errs = append(errs, err)
	}
	links, err := ownLinks()
	errs = append(errs, err)
	for _, l := range links {
		// One may go by itself meanwhile, with its pod's network namespace.
		if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("remove link %s: %w", l.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}

var linkName = regexp.MustCompile("^" + datapath.LinkPrefix + "[0-9a-f]{12}$")

// ownLinks lists the links in this network namespace that lead to pods.
func ownLinks() ([]netlink.Link, error) {
	all, err := netdump.Whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var out []netlink.Link
	for _, l := range all {
		if l.Type() == "veth" && linkName.MatchString(l.Attrs().Name) {
			out = append(out, l)
		}
	}
	return out, nil
}

// ownTable reports whether an nftables table of this network namespace is the
// machine's: those of the platform, and kube-proxy's.
func ownTable(name string) bool {
	return name == "kube-proxy" || strings.HasPrefix(name, "emerald-")
}

// LeftError says what a wipe could not remove.
type LeftError struct{ Left []string }

func (e *LeftError) Error() string {
	return "the machine left traces: " + strings.Join(e.Left, "; ") + "; run `emerald down --wipe` again, and reboot if they stay"
}

// Left looks for anything that a machine leaves, and returns nil when there is
// nothing, a [*LeftError] when there is.
func Left(o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	var left []string
	var errs []error
	note := func(what string, items []string, err error) {
		errs = append(errs, err)
		for _, i := range items {
			left = append(left, what+" "+i)
		}
	}
	for _, dir := range []string{o.Dirs.Data, o.Dirs.Run} {
		files, err := leftovers(dir)
		note("file", files, err)
	}
	mounts, err := mountsOf(o.Dirs)
	note("mount", mounts, err)
	pids, err := processesOf(o.Dirs)
	note("process", words(pids), err)
	tree := cgroup.Tree{Root: o.CgroupRoot}
	if tree.Exists() {
		note("cgroup", []string{o.CgroupRoot}, nil)
		pids, err := tree.Processes("")
		note("process", words(pids), err)
	}
	links, err := ownLinks()
	var names []string
	for _, l := range links {
		names = append(names, l.Attrs().Name)
	}
	note("link", names, err)
	tables, err := ownTables()
	note("nftables table", tables, err)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("look for traces: %w", err)
	}
	if len(left) > 0 {
		return &LeftError{Left: left}
	}
	return nil
}

func words(pids []int) []string {
	var out []string
	for _, pid := range pids {
		out = append(out, fmt.Sprint(pid))
	}
	return out
}

func ownTables() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("reach nftables: %w", err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nftables: %w", err)
	}
	var out []string
	for _, t := range tables {
		if ownTable(t.Name) {
			out = append(out, t.Name)
		}
	}
	return out, nil
}
