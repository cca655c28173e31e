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
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"

	"github.com/emerald-platform/emerald/kit/netdump"
)

// runRoot and dataRoot hold one directory per lab, named by its number. The
// path is short because sockets live below.
const (
	runRoot  = "/run/emlab"
	dataRoot = "/var/tmp/emlab"
)

// Lab is a set of machines on this host. Machines are in 198.18.<number>.0/24,
// a part of the range that RFC 2544 sets aside for tests.
type Lab struct {
	id        int
	run, data string
	lock      *os.File

	mu       sync.Mutex
	machines []*Machine
}

// New makes an empty lab, after removing what dead labs have left.
func New(ctx context.Context) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("make a lab: it takes root to make network namespaces")
	}
	if err := os.MkdirAll(runRoot, 0o755); err != nil {
		return nil, fmt.Errorf("make a lab: %w", err)
	}
	if err := sweep(ctx); err != nil {
		return nil, fmt.Errorf("make a lab: %w", err)
	}
	for id := 1; id < 255; id++ {
		l := numbered(id)
		ok, err := l.claim()
		if err != nil {
			return nil, fmt.Errorf("make a lab: %w", err)
		}
		if !ok {
			continue
		}
		if err := os.MkdirAll(l.data, 0o755); err != nil {
			return nil, fmt.Errorf("make a lab: %w", err)
		}
		if err := os.MkdirAll(l.run, 0o755); err != nil {
			return nil, fmt.Errorf("make a lab: %w", err)
		}
		if err := l.connect(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("connect the lab: %w", err), l.Close(ctx))
		}
		return l, nil
	}
	return nil, errors.New("make a lab: 254 of them run already")
}

func numbered(id int) *Lab {
	return &Lab{id: id, run: filepath.Join(runRoot, strconv.Itoa(id)), data: filepath.Join(dataRoot, strconv.Itoa(id))}
}

// sweep removes every lab whose process is gone.
func sweep(ctx context.Context) error {
	entries, err := os.ReadDir(runRoot)
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, err := strconv.Atoi(strings.TrimSuffix(e.Name(), ".lock"))
		if err != nil || e.IsDir() {
			continue
		}
		l := numbered(id)
		if ok, err := l.claim(); err != nil || !ok {
			continue // it lives
		}
		if err := errors.Join(l.clear(ctx), os.Remove(l.run+".lock"), l.lock.Close()); err != nil {
			return fmt.Errorf("remove what lab %d left behind: %w", id, err)
		}
	}
	return nil
}

// claim takes the lab's number; false when a living process has it.
func (l *Lab) claim() (bool, error) {
	f, err := os.OpenFile(l.run+".lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return false, nil
		}
		return false, err
	}
	// Whoever had the number may have removed the file after we opened it: then
	// this is the lock of nothing, and the next one would claim the number too.
	opened, err := f.Stat()
	if err == nil {
		var there os.FileInfo
		if there, err = os.Stat(f.Name()); err == nil && os.SameFile(opened, there) {
			l.lock = f
			return true, nil
		}
	}
	f.Close()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	return false, nil
}

// clear removes a lab whose process is gone: its machines are what its
// directories say.
func (l *Lab) clear(ctx context.Context) error {
	entries, err := os.ReadDir(l.run)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".net")
		if !ok {
			continue
		}
		m := &Machine{Name: name, lab: l, ns: &namespace{filepath.Join(l.run, e.Name())}}
		m.Dirs.Run = filepath.Join(l.run, name)
		if err := m.powerOff(ctx); err != nil {
			return err
		}
	}
	return l.disconnect(ctx)
}

// Close powers every machine off and removes the lab.
func (l *Lab) Close(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, m := range l.machines {
		errs = append(errs, m.powerOff(ctx))
	}
	l.machines = nil
	errs = append(errs, l.disconnect(context.WithoutCancel(ctx)))
	errs = append(errs, os.Remove(l.run+".lock"), l.lock.Close())
	// Only when empty, that is after the last lab.
	_ = os.Remove(runRoot)
	_ = os.Remove(dataRoot)
	return errors.Join(errs...)
}

// connect lets machines reach what the host reaches, under the host's address.
func (l *Lab) connect(ctx context.Context) error {
	if err := changeHost(); err != nil {
		return err
	}
	nft, err := knftables.New(knftables.IPv4Family, l.table())
	if err != nil {
		return err
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("machines of an emerald lab")})
	tx.Add(&knftables.Chain{
		Name: "postrouting", Type: knftables.PtrTo(knftables.NATType),
		Hook: knftables.PtrTo(knftables.PostroutingHook), Priority: knftables.PtrTo(knftables.SNATPriority),
	})
	network := fmt.Sprintf("198.18.%d.0/24", l.id)
	tx.Add(&knftables.Rule{Chain: "postrouting", Rule: knftables.Concat("ip saddr", network, "ip daddr !=", network, "masquerade")})
	return nft.Run(ctx, tx)
}

// table is not named like those of the platform, which a wipe on the host removes.
func (l *Lab) table() string { return fmt.Sprintf("emlab-%d", l.id) }

// disconnect removes cables, rules and directories.
func (l *Lab) disconnect(ctx context.Context) error {
	var errs []error
	links, err := netdump.Whole(netlink.LinkList)
	errs = append(errs, err)
	for _, link := range links {
		if strings.HasPrefix(link.Attrs().Name, fmt.Sprintf("emlab%d-", l.id)) {
			// It goes by itself with the last process at its other end.
			if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
				errs = append(errs, fmt.Errorf("remove link %s: %w", link.Attrs().Name, err))
			}
		}
	}
	nft, err := knftables.New(knftables.IPv4Family, l.table())
	if err == nil {
		tx := nft.NewTransaction()
		// Adding first makes deleting one that is not there no error.
		tx.Add(&knftables.Table{})
		tx.Delete(&knftables.Table{})
		err = nft.Run(ctx, tx)
	}
	errs = append(errs, err, os.RemoveAll(l.run), os.RemoveAll(l.data), restoreHost())
	return errors.Join(errs...)
}
