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

	"github.com/emerald-platform/emerald/kit/durable"
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
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
		if err := durable.WriteFile(path, data, 0o755); err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
	}
	return nil
}
