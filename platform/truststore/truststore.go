// Package truststore adds certificate authorities to those that the host trusts,
// and takes them away again.
//
// It promises to touch no file but its own, whose names begin with a prefix that
// nobody else uses, and to leave nothing half done: what it could not make the
// host trust it removes again. It refuses hosts whose store it does not know.
//
// Invariant: a file of this package in the store's directory holds exactly one
// certificate.
package truststore

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/emerald-platform/emerald/kit/durable"
)

// prefix begins the name of every file this package writes.
const prefix = "emerald-ca-"

// ErrUnknown is returned by [Find] for a host whose store is none of those known
// here.
var ErrUnknown = errors.New("this host keeps its authorities in a way not known here")

// Store is where a host keeps authorities that its administrator trusts. Make it
// with [Find].
type Store struct {
	// Dir is the directory for one file per authority.
	Dir string
	// Update is the command, with arguments, that makes programs see a change,
	// and Purge the one that does so after a removal: Debian's needs to be told
	// to drop the links it made.
	Update, Purge []string
	// Bundle is the file with every authority that the host trusts, which Update
	// writes.
	Bundle string
}

// stores are those of the distributions, the more particular first: openSUSE has
// a command of Debian's name.
var stores = []Store{
	{ // Fedora, RHEL
		Dir: "/etc/pki/ca-trust/source/anchors", Bundle: "/etc/pki/tls/certs/ca-bundle.crt",
		Update: []string{"update-ca-trust", "extract"}, Purge: []string{"update-ca-trust", "extract"},
	},
	{ // Arch
		Dir: "/etc/ca-certificates/trust-source/anchors", Bundle: "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
		Update: []string{"update-ca-trust", "extract"}, Purge: []string{"update-ca-trust", "extract"},
	},
	{ // openSUSE
		Dir: "/etc/pki/trust/anchors", Bundle: "/etc/ssl/ca-bundle.pem",
		Update: []string{"update-ca-certificates"}, Purge: []string{"update-ca-certificates", "--fresh"},
	},
	{ // Debian, Ubuntu, Alpine
		Dir: "/usr/local/share/ca-certificates", Bundle: "/etc/ssl/certs/ca-certificates.crt",
		Update: []string{"update-ca-certificates"}, Purge: []string{"update-ca-certificates", "--fresh"},
	},
}

// Find returns the store of the host whose root directory is root, "/" for the
// one this runs on. It is one whose directory and command exist; otherwise the
// error is [ErrUnknown].
func Find(root string) (Store, error) {
	for _, s := range stores {
		dir := filepath.Join(root, s.Dir)
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			continue
		}
		for _, bin := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
			command := filepath.Join(root, bin, s.Update[0])
			if _, err := exec.LookPath(command); err == nil {
				return Store{
					Dir: dir, Bundle: filepath.Join(root, s.Bundle),
					Update: append([]string{command}, s.Update[1:]...), Purge: append([]string{command}, s.Purge[1:]...),
				}, nil
			}
		}
	}
	return Store{}, ErrUnknown
}

// Add makes the host trust the certificates and returns the files it wrote, one
// each. It needs the rights of root. When it fails nothing is left behind.
func (s Store) Add(ctx context.Context, certs []*x509.Certificate) ([]string, error) {
	var written []string
	err := func() error {
		for _, c := range certs {
			path := filepath.Join(s.Dir, fileName(c))
			if _, err := os.Stat(path); err == nil {
				// Trusted before; not to be removed if the rest fails.
				continue
			}
			text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
			if err := durable.WriteFile(path, text, 0o644); err != nil {
				return fmt.Errorf("add %q to the host's authorities: %w", c.Subject.CommonName, err)
			}
			written = append(written, path)
		}
		if err := runHost(ctx, s.Update); err != nil {
			return err
		}
		return s.check(certs)
	}()
	if err != nil {
		for _, path := range written {
			err = errors.Join(err, os.Remove(path))
		}
		if len(written) > 0 {
			err = errors.Join(err, runHost(context.WithoutCancel(ctx), s.Purge))
		}
		return nil, err
	}
	return s.Files(certs), nil
}

// Files returns where the certificates are kept once they are added.
func (s Store) Files(certs []*x509.Certificate) []string {
	var files []string
	for _, c := range certs {
		files = append(files, filepath.Join(s.Dir, fileName(c)))
	}
	return files
}

// Remove makes the host forget every certificate that Add has ever added and
// returns the files it removed; none is no error. It needs the rights of root.
func (s Store) Remove(ctx context.Context) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(s.Dir, prefix+"*.crt"))
	if err != nil {
		return nil, fmt.Errorf("list the authorities in %q: %w", s.Dir, err)
	}
	if len(files) == 0 {
		return nil, nil
	}
	return s.Forget(ctx, files)
}

// Forget makes the host forget the certificates in these files, which Add
// returned, and returns those that were still there. It needs the rights of
// root.
func (s Store) Forget(ctx context.Context, files []string) ([]string, error) {
	var removed []string
	for _, path := range files {
		if filepath.Dir(path) != s.Dir || !strings.HasPrefix(filepath.Base(path), prefix) {
			return removed, fmt.Errorf("forget an authority: %s is no file of ours", path)
		}
		err := os.Remove(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return removed, fmt.Errorf("forget an authority: %w", err)
		}
		removed = append(removed, path)
	}
	if len(removed) == 0 {
		return nil, nil
	}
	return removed, runHost(ctx, s.Purge)
}

// runHost runs a command of the host's own.
func runHost(ctx context.Context, command []string) error {
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// check returns an error unless every certificate is among those the host now
// trusts.
func (s Store) check(certs []*x509.Certificate) error {
	raw, err := os.ReadFile(s.Bundle)
	if err != nil {
		return fmt.Errorf("check the host's authorities: %w", err)
	}
	var trusted [][]byte
	for {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			break
		}
		trusted = append(trusted, block.Bytes)
	}
	for _, c := range certs {
		if !slices.ContainsFunc(trusted, func(der []byte) bool { return slices.Equal(der, c.Raw) }) {
			return fmt.Errorf("%s did not add %q to %s", strings.Join(s.Update, " "), c.Subject.CommonName, s.Bundle)
		}
	}
	return nil
}

// fileName is the same for the same certificate.
func fileName(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return prefix + hex.EncodeToString(sum[:8]) + ".crt"
}
