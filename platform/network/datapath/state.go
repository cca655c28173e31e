package datapath

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// State is everything the datapath remembers. It is void after a reboot, like
// the kernel objects it describes.
type State struct {
	// Boot names the boot of the kernel that the state is about.
	Boot string `json:"boot"`
	// Last is the address given out last in each range, so that a freed
	// address rests for as long as possible before it names another pod.
	Last map[netip.Prefix]netip.Addr `json:"last,omitempty"`
	// Attachments in the order they were made.
	Attachments []Attachment `json:"attachments,omitempty"`
}

func (s *State) find(container, iface string) *Attachment {
	i := slices.IndexFunc(s.Attachments, func(a Attachment) bool { return a.is(container, iface) })
	if i < 0 {
		return nil
	}
	a := s.Attachments[i]
	return &a
}

// take removes and returns an attachment, nil when there is none.
func (s *State) take(container, iface string) *Attachment {
	a := s.find(container, iface)
	s.Attachments = slices.DeleteFunc(s.Attachments, func(a Attachment) bool { return a.is(container, iface) })
	return a
}

// allocate picks a free address of every range.
func (s *State) allocate(ranges []netip.Prefix) ([]netip.Addr, error) {
	used := map[netip.Addr]bool{}
	for _, a := range s.Attachments {
		for _, addr := range a.Addresses {
			used[addr] = true
		}
	}
	var out []netip.Addr
	for _, r := range ranges {
		addr, ok := next(r.Masked(), s.Last[r.Masked()], used)
		if !ok {
			return nil, fmt.Errorf("allocate pod address: all of %s is in use by %d pods", r, len(s.Attachments))
		}
		if s.Last == nil {
			s.Last = map[netip.Prefix]netip.Addr{}
		}
		s.Last[r.Masked()] = addr
		out = append(out, addr)
	}
	return out, nil
}

// next returns the first free address of r after last, going round. The first
// address of a range (and the last, where the family has broadcasts) names the
// network, and the second is left free for a gateway.
func next(r netip.Prefix, last netip.Addr, used map[netip.Addr]bool) (netip.Addr, bool) {
	first := r.Addr().Next().Next()
	if !r.Contains(first) {
		return netip.Addr{}, false
	}
	usable := func(a netip.Addr) bool {
		return r.Contains(a) && (a.Is6() || r.Contains(a.Next()))
	}
	start := first
	if r.Contains(last) && usable(last.Next()) {
		start = last.Next()
	}
	for a := start; ; {
		if !usable(a) {
			a = first
		} else if !used[a] {
			return a, true
		} else {
			a = a.Next()
		}
		if a == start {
			return netip.Addr{}, false
		}
	}
}

// store keeps the state in a file.
type store struct{ dir string }

// update runs change on the state while no other process can. change calls
// save as often as it must be sure that what it did is remembered.
func (st store) update(change func(s *State, save func() error) error) error {
	if err := os.MkdirAll(st.dir, 0o700); err != nil {
		return fmt.Errorf("open the network's state: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(st.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock the network's state: %w", err)
	}
	defer lock.Close()
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock the network's state: %w", err)
		}
	}
	s, err := st.load()
	if err != nil {
		return err
	}
	return change(s, func() error { return st.save(s) })
}

func (st store) path() string { return filepath.Join(st.dir, "state.json") }

func (st store) load() (*State, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("tell this boot from others: %w", err)
	}
	fresh := &State{Boot: string(bytes.TrimSpace(boot))}
	data, err := os.ReadFile(st.path())
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the network's state: %w", err)
	}
	s := new(State)
	if err := json.Unmarshal(data, s); err != nil || s.Boot != fresh.Boot {
		// Files are replaced whole, so a broken one can only come from a
		// power loss, after which its content is void anyway.
		return fresh, nil
	}
	return s, nil
}

// save replaces the state file whole. It need not survive a power loss.
func (st store) save(s *State) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write the network's state: %w", err)
	}
	tmp := st.path() + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write the network's state: %w", err)
	}
	if err := os.Rename(tmp, st.path()); err != nil {
		return fmt.Errorf("write the network's state: %w", err)
	}
	return nil
}
