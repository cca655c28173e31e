package pki

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func testIdentity() Identity {
	return Identity{
		Node: "one", Addresses: []net.IP{net.IPv4(192, 0, 2, 1).To4()},
		ServiceAddress: net.IPv4(10, 43, 0, 1).To4(), ClusterDomain: "cluster.local",
	}
}

func openAt(t *testing.T, dir string, id Identity, now time.Time) *PKI {
	t.Helper()
	p, err := open(dir, id, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOpenMakesUsablePairs(t *testing.T) {
	p := openAt(t, t.TempDir(), testIdentity(), start)
	for _, l := range p.leaves {
		if _, err := tls.LoadX509KeyPair(p.Cert(l.name), p.Key(l.name)); err != nil {
			t.Errorf("%s: %v", l.name, err)
		}
		info, err := os.Stat(p.Key(l.name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("the key of %s has mode %o, want 600", l.name, info.Mode().Perm())
		}
	}
	api, err := readCert(p.Cert(APIServer))
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"kubernetes.default.svc", "localhost", "127.0.0.1", "192.0.2.1", "10.43.0.1", "one"} {
		if err := api.VerifyHostname(host); err != nil {
			t.Errorf("the API's certificate: %v", err)
		}
	}
}

func TestRenewal(t *testing.T) {
	tests := []struct {
		reason string
		after  time.Duration
		id     func(*Identity)
		want   int // how many leaves are replaced
	}{
		{reason: "fresh ones stay", after: 24 * time.Hour, want: 0},
		{reason: "before the last third they stay", after: leafLife*2/3 - 10*time.Minute, want: 0},
		{reason: "in the last third all are replaced", after: leafLife*2/3 + time.Minute, want: 12},
		{reason: "long after their end all are replaced", after: 5 * leafLife, want: 12},
		{reason: "a new address replaces what names it", after: time.Hour, want: 3,
			id: func(id *Identity) { id.Addresses = []net.IP{net.IPv4(192, 0, 2, 9).To4()} }},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			dir, id := t.TempDir(), testIdentity()
			first := openAt(t, dir, id, start)
			before := map[string]string{}
			for _, l := range first.leaves {
				before[l.name] = read(t, first.Cert(l.name)) + read(t, first.Key(l.name))
			}
			ca := read(t, first.Cert(ClusterCA))
			if tt.id != nil {
				tt.id(&id)
			}
			second := openAt(t, dir, id, start.Add(tt.after))
			replaced := 0
			for _, l := range second.leaves {
				if read(t, second.Cert(l.name))+read(t, second.Key(l.name)) != before[l.name] {
					replaced++
				}
				if !strings.HasSuffix(before[l.name], read(t, second.Key(l.name))) {
					t.Errorf("the key of %s changed: a handshake could have seen half a pair", l.name)
				}
			}
			if replaced != tt.want {
				t.Errorf("%d certificates were replaced, want %d", replaced, tt.want)
			}
			if read(t, second.Cert(ClusterCA)) != ca {
				t.Error("the authority was replaced")
			}
		})
	}
}

// TestHalfWritten opens what a power loss at each step of the first start
// leaves behind.
func TestHalfWritten(t *testing.T) {
	tests := []struct {
		reason string
		damage func(p *PKI) error
		want   string // in the error; "" opens
	}{
		{reason: "a key without its certificate is made anew", damage: func(p *PKI) error { return os.Remove(p.Cert(Scheduler)) }},
		{reason: "a certificate without its key is made anew", damage: func(p *PKI) error { return os.Remove(p.Key(Scheduler)) }},
		{reason: "an empty certificate is made anew", damage: func(p *PKI) error { return os.Truncate(p.Cert(Scheduler), 0) }},
		{reason: "an authority's key is never made anew", damage: func(p *PKI) error { return os.Remove(p.Key(ClusterCA)) }, want: "restore"},
		{reason: "a broken authority is never made anew", damage: func(p *PKI) error { return os.Truncate(p.Cert(ClusterCA), 3) }, want: "cluster's identity"},
		{reason: "an authority of which only the key was written is made anew", damage: func(p *PKI) error { return os.Remove(p.Cert(EtcdCA)) }},
		{reason: "a broken token key is never made anew", damage: func(p *PKI) error { return os.Truncate(p.Key(ServiceAccounts), 3) }, want: "restore"},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			dir := t.TempDir()
			p := openAt(t, dir, testIdentity(), start)
			if err := tt.damage(p); err != nil {
				t.Fatal(err)
			}
			_, err := open(dir, testIdentity(), func() time.Time { return start })
			if tt.want == "" && err != nil {
				t.Errorf("open: %v, want no error", err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("open: %v, want an error that says %q", err, tt.want)
			}
		})
	}
}

func TestAuthoritiesDiffer(t *testing.T) {
	p := openAt(t, t.TempDir(), testIdentity(), start)
	pool := x509.NewCertPool()
	ca, err := readCert(p.Cert(EtcdCA))
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(ca)
	admin, err := readCert(p.Cert(Admin))
	if err != nil {
		t.Fatal(err)
	}
	_, err = admin.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: start, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err == nil {
		t.Error("etcd's authority vouches for a user of the API: whoever owns one could enter the other")
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
