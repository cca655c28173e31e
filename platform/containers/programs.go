package containers

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/emerald-platform/emerald/platform/containers/embedded"
	"github.com/emerald-platform/emerald/platform/dirs"
)

// PauseImage returns the local name of the image that every pod's first
// process comes from. The name tells its content, so an upgrade that changes
// the program changes the name.
func PauseImage() (string, error) {
	data, err := embedded.Read(embedded.Pause)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return "emerald.local/pause:" + hex.EncodeToString(sum[:6]), nil
}

// unpack writes the embedded programs to where the runtime looks for them.
// Files that are right already are left alone: replacing a program's file does
// not disturb the processes that run it.
func unpack(d dirs.Dirs) error {
	for name, dir := range map[string]string{
		embedded.Runc: d.Bin(),
		embedded.Shim: d.Bin(),
		embedded.CNI:  d.CNIBin(),
	} {
		data, err := embedded.Read(name)
		if err != nil {
			return err
		}
		path := filepath.Join(dir, name)
		have, err := os.ReadFile(path)
		if err == nil && bytes.Equal(have, data) {
			if err := os.Chmod(path, 0o755); err != nil {
				return fmt.Errorf("unpack %s: %w", name, err)
			}
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
		if err := writeFile(path, data, 0o755); err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
	}
	return nil
}

// writeFile replaces path in one step that also survives a power loss: readers
// and a machine that crashed see the old content or the new, never a part.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
