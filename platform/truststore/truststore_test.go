package truststore

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func root(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// host makes a directory that looks like a Debian host, whose update command is
// the given shell script, run in the root directory.
func host(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"usr/local/share/ca-certificates", "usr/sbin", "etc/ssl/certs"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text := "#!/bin/sh\nset -e\ncd " + dir + "\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(dir, "usr/sbin/update-ca-certificates"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// debian is what update-ca-certificates does, in short: links stay after a
// removal unless it is told to start afresh.
const debian = `
if [ "$1" = --fresh ]; then rm -f etc/ssl/certs/*.pem; fi
for f in usr/local/share/ca-certificates/*.crt; do ln -sf "$PWD/$f" etc/ssl/certs/$(basename $f .crt).pem; done
{ cat usr/share/other.crt; cat usr/local/share/ca-certificates/*.crt; } > etc/ssl/certs/ca-certificates.crt 2>/dev/null || true`

func find(t *testing.T, dir string) Store {
	t.Helper()
	s, err := Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func files(t *testing.T, s Store) []string {
	t.Helper()
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestAddAndRemove(t *testing.T) {
	dir := host(t, debian)
	s := find(t, dir)
	if err := os.WriteFile(filepath.Join(s.Dir, "company.crt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	a, b := root(t, "a"), root(t, "b")
	for range 2 { // a second time changes nothing
		got, err := s.Add(t.Context(), []*x509.Certificate{a, b})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{filepath.Join(s.Dir, fileName(a)), filepath.Join(s.Dir, fileName(b))}, got); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
		if n := len(files(t, s)); n != 3 {
			t.Errorf("%d files: %v", n, files(t, s))
		}
	}
	if err := s.check([]*x509.Certificate{a, b}); err != nil {
		t.Error(err)
	}
	removed, err := s.Remove(t.Context())
	if err != nil || len(removed) != 2 {
		t.Errorf("removed %v: %v", removed, err)
	}
	if diff := cmp.Diff([]string{"company.crt"}, files(t, s)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	links, err := filepath.Glob(filepath.Join(dir, "etc/ssl/certs/"+prefix+"*"))
	if err != nil || len(links) != 0 {
		t.Errorf("links left: %v %v", links, err)
	}
	if err := s.check([]*x509.Certificate{a}); err == nil {
		t.Error("the host still trusts a removed authority")
	}
	if removed, err := s.Remove(t.Context()); err != nil || len(removed) != 0 {
		t.Errorf("removed again: %v: %v", removed, err)
	}
}

func TestAddLeavesNothingHalfDone(t *testing.T) {
	for name, tc := range map[string]struct{ reason, script, want string }{
		"fails":   {"the host's command says no", "echo broken >&2; exit 3", "broken"},
		"ignores": {"the command did not do its work", ": > etc/ssl/certs/ca-certificates.crt", "did not add"},
	} {
		t.Run(name, func(t *testing.T) {
			s := find(t, host(t, tc.script))
			if _, err := s.Add(t.Context(), []*x509.Certificate{root(t, "a")}); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: error %v, want %q", tc.reason, err, tc.want)
			}
			if left := files(t, s); len(left) != 0 {
				t.Errorf("%s: left %v", tc.reason, left)
			}
		})
	}
}

func TestFindUnknown(t *testing.T) {
	if _, err := Find(t.TempDir()); !errors.Is(err, ErrUnknown) {
		t.Errorf("an empty host: %v", err)
	}
	dir := host(t, debian)
	if err := os.Remove(filepath.Join(dir, "usr/sbin/update-ca-certificates")); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(dir); !errors.Is(err, ErrUnknown) {
		t.Errorf("a host without the command: %v", err)
	}
}

// Forget takes away what it is told to and nothing else, also when half of it
// is gone already, and refuses files that are not ours.
func TestForget(t *testing.T) {
	dir := host(t, debian)
	store, err := Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	mine, others := root(t, "mine"), root(t, "another platform's")
	files, err := store.Add(t.Context(), []*x509.Certificate{mine})
	if err != nil {
		t.Fatal(err)
	}
	kept, err := store.Add(t.Context(), []*x509.Certificate{others})
	if err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(store.Dir, prefix+"gone.crt")
	removed, err := store.Forget(t.Context(), append(files, gone))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(files, removed); diff != "" {
		t.Errorf("removed, -want +got:\n%s", diff)
	}
	if err := store.check([]*x509.Certificate{others}); err != nil {
		t.Errorf("another platform's authority: %v", err)
	}
	if store.check([]*x509.Certificate{mine}) == nil {
		t.Error("the host still trusts the one it was to forget")
	}
	for _, foreign := range []string{"/etc/passwd", filepath.Join(store.Dir, "company.crt")} {
		if _, err := store.Forget(t.Context(), []string{foreign}); err == nil {
			t.Errorf("%s was removed", foreign)
		}
	}
	if _, err := os.Stat(kept[0]); err != nil {
		t.Error(err)
	}
}
