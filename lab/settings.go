package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// hostSettings are what labs change of the host: it passes on the machines'
// packets, and lets many machines watch files.
var hostSettings = map[string]string{
	"net/ipv4/ip_forward":           "1",
	"fs/inotify/max_user_instances": "65536",
	"fs/inotify/max_user_watches":   "1048576",
}

// settingBefore is the file that keeps what a setting was before the first lab.
func settingBefore(name string) string {
	return filepath.Join(runRoot, "before-"+strings.ReplaceAll(name, "/", "."))
}

// changeHost makes the settings for the first lab.
func changeHost() error {
	for name, want := range hostSettings {
		path := filepath.Join("/proc/sys", name)
		before, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read kernel setting %s: %w", name, err)
		}
		if _, err := os.Stat(settingBefore(name)); errors.Is(err, fs.ErrNotExist) {
			if err := os.WriteFile(settingBefore(name), before, 0o600); err != nil {
				return fmt.Errorf("keep kernel setting %s: %w", name, err)
			}
		}
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			return fmt.Errorf("change kernel setting %s: %w", name, err)
		}
	}
	return nil
}

// restoreHost puts the settings back when the last lab has gone.
func restoreHost() error {
	entries, err := os.ReadDir(runRoot)
	if err != nil {
		return fmt.Errorf("look for other labs: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			return nil
		}
	}
	var errs []error
	for name := range hostSettings {
		before, err := os.ReadFile(settingBefore(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		errs = append(errs, err)
		if err == nil {
			errs = append(errs, os.WriteFile(filepath.Join("/proc/sys", name), before, 0o644), os.Remove(settingBefore(name)))
		}
	}
	return errors.Join(errs...)
}
