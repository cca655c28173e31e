// Package sysctl changes kernel settings in a way that can be taken back: the
// value a setting had before the platform first touched it is written down
// before it changes, and Restore brings it back.
//
// Invariant: a setting that the platform changed is in the record.
package sysctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/emerald-platform/emerald/kit/durable"
)

// Record is the file that remembers. It is used by one process at a time.
type Record struct{ Path string }

// saved is the record's content. Settings of the network belong to a network
// namespace, so a record is only good for the boot in which it was made.
type saved struct {
	Boot   string            `json:"boot"`
	Values map[string]string `json:"values"`
}

// file returns where the kernel shows a setting, for example
// "net/ipv4/ip_forward".
func file(name string) string { return filepath.Join("/proc/sys", name) }

// Remember writes down the present values of the settings that are not in the
// record yet. Settings that this kernel does not have are left out.
func (r Record) Remember(names ...string) error {
	s, err := r.load()
	if err != nil {
		return err
	}
	changed := false
	for _, name := range names {
		if _, ok := s.Values[name]; ok {
			continue
		}
		value, err := os.ReadFile(file(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read kernel setting %s: %w", name, err)
		}
		s.Values[name] = strings.TrimSpace(string(value))
		changed = true
	}
	if !changed {
		return nil
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("remember kernel settings: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(r.Path), 0o755); err != nil {
		return fmt.Errorf("remember kernel settings: %w", err)
	}
	if err := durable.WriteFile(r.Path, data, 0o600); err != nil {
		return fmt.Errorf("remember kernel settings: %w", err)
	}
	return nil
}

// Set changes a setting after remembering what it was.
func (r Record) Set(name, value string) error {
	if have, err := os.ReadFile(file(name)); err == nil && strings.TrimSpace(string(have)) == value {
		return nil
	}
	if err := r.Remember(name); err != nil {
		return err
	}
	if err := os.WriteFile(file(name), []byte(value), 0); err != nil {
		return fmt.Errorf("set kernel setting %s to %s: %w", name, value, err)
	}
	return nil
}

// Restore sets everything in the record back and forgets it. A record of an
// earlier boot has nothing to say: the kernel started anew since.
func (r Record) Restore() error {
	s, err := r.load()
	if err != nil {
		return err
	}
	var errs []error
	for name, value := range s.Values {
		have, err := os.ReadFile(file(name))
		if err == nil && strings.TrimSpace(string(have)) == value {
			continue
		}
		err = os.WriteFile(file(name), []byte(value), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EROFS) {
			errs = append(errs, fmt.Errorf("restore kernel setting %s to %s: %w", name, value, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := os.Remove(r.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget kernel settings: %w", err)
	}
	return nil
}

// load returns the record, empty when it is missing, broken or of another boot.
func (r Record) load() (saved, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return saved{}, fmt.Errorf("tell this boot from others: %w", err)
	}
	fresh := saved{Boot: strings.TrimSpace(string(boot)), Values: map[string]string{}}
	data, err := os.ReadFile(r.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return saved{}, fmt.Errorf("read remembered kernel settings: %w", err)
	}
	var s saved
	if json.Unmarshal(data, &s) != nil || s.Boot != fresh.Boot || s.Values == nil {
		return fresh, nil
	}
	return s, nil
}
