package cli

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"

	"github.com/emerald-platform/emerald/kit/durable"
	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/machine"
	"github.com/emerald-platform/emerald/platform/truststore"
)

// The data directory of a machine remembers which authorities this host trusts
// because of it, so that wiping it takes them away, and only them.

func trustNote(d dirs.Dirs) string { return d.InData("trusted.json") }

// noteTrust remembers that the host trusts the roots, when they are those of the
// machine's own platform, at server.
func noteTrust(d dirs.Dirs, server string, store truststore.Store, roots []*x509.Certificate) error {
	own, err := isOwn(d, server)
	if err != nil || !own {
		return err
	}
	files, err := trusted(d)
	if err != nil {
		return err
	}
	for _, file := range store.Files(roots) {
		if !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	raw, err := json.Marshal(files)
	if err != nil {
		return fmt.Errorf("note what this host trusts: %w", err)
	}
	if err := durable.WriteFile(trustNote(d), raw, 0o600); err != nil {
		return fmt.Errorf("note what this host trusts: %w", err)
	}
	return nil
}

// isOwn tells whether the API server is that of the platform on this machine.
func isOwn(d dirs.Dirs, server string) (bool, error) {
	s, err := machine.LoadSettings(d)
	if err != nil || s.Address == "" {
		return false, err
	}
	u, err := url.Parse(server)
	if err != nil {
		return false, nil
	}
	return slices.Contains([]string{"127.0.0.1", "localhost", s.Address}, u.Hostname()), nil
}

// trusted returns the files that were noted.
func trusted(d dirs.Dirs) ([]string, error) {
	raw, err := os.ReadFile(trustNote(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what this host trusts: %w", err)
	}
	var files []string
	if err := json.Unmarshal(raw, &files); err != nil {
		return nil, fmt.Errorf("read what this host trusts: %w", err)
	}
	return files, nil
}

// forgetTrust makes the host forget the authorities of a platform that is gone.
func forgetTrust(ctx context.Context, files []string) error {
	if len(files) == 0 {
		return nil
	}
	store, err := truststore.Find("/")
	if err == nil {
		_, err = store.Forget(ctx, files)
	}
	if err != nil {
		return fmt.Errorf("take the platform's authority away from this host: %w: do it with: emerald trust --undo", err)
	}
	return nil
}
