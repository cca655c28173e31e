package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const forwardSysctl = "/proc/sys/net/ipv4/ip_forward"

// forwardBefore keeps what the sysctl was before the first lab.
var forwardBefore = filepath.Join(runRoot, "ip_forward")

// forward lets the host pass on the machines' packets, and puts the setting
// back when the last lab has gone.
func forward(on bool) error {
	if on {
		before, err := os.ReadFile(forwardSysctl)
		if err != nil {
			return fmt.Errorf("read %s: %w", forwardSysctl, err)
		}
		if _, err := os.Stat(forwardBefore); errors.Is(err, fs.ErrNotExist) {
			if err := os.WriteFile(forwardBefore, before, 0o600); err != nil {
				return fmt.Errorf("keep %s: %w", forwardSysctl, err)
			}
		}
		return os.WriteFile(forwardSysctl, []byte("1\n"), 0o644)
	}
	entries, err := os.ReadDir(runRoot)
	if err != nil {
		return fmt.Errorf("look for other labs: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			return nil
		}
	}
	before, err := os.ReadFile(forwardBefore)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(before)) != "1" {
		if err := os.WriteFile(forwardSysctl, before, 0o644); err != nil {
			return fmt.Errorf("put %s back: %w", forwardSysctl, err)
		}
	}
	return os.Remove(forwardBefore)
}
