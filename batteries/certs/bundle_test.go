package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// signer is a certificate with its key.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var serial int64

// issue makes a certificate signed by another, or by itself when by is nil.
func issue(t testing.TB, name string, isCA bool, end time.Time, by *signer) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: end.Add(-24 * time.Hour), NotAfter: end, IsCA: isCA, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	parent, signing := template, key
	if by != nil {
		parent, signing = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signing)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{cert, key}
}

func text(signers ...*signer) []byte {
	var certs []*x509.Certificate
	for _, s := range signers {
		certs = append(certs, s.cert)
	}
	return encodeCertificates(certs)
}

func names(certs []*x509.Certificate) []string {
	var out []string
	for _, c := range certs {
		out = append(out, c.Subject.CommonName)
	}
	return out
}

var (
	now   = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	later = now.Add(time.Hour)
)

func TestRoots(t *testing.T) {
	root := issue(t, "root", true, later, nil)
	other := issue(t, "other", true, later, nil)
	middle := issue(t, "middle", true, later, root)
	leaf := issue(t, "leaf", false, later, root)
	for name, tc := range map[string]struct {
		reason        string
		chain, issuer []byte
		want          []string
		err           error
	}{
		"own root": {reason: "cert-manager writes a self-signed authority to both", chain: text(root), issuer: text(root), want: []string{"root"}},
		"intermediate": {
			reason: "the root is what must be trusted", chain: text(middle), issuer: text(root), want: []string{"root"},
		},
		"intermediate alone":  {reason: "nothing better is known", chain: text(middle), want: []string{"middle"}},
		"chain from an admin": {reason: "the whole chain in one file", chain: text(middle, root), want: []string{"root"}},
		"cross-signed":        {reason: "two roots vouch for it", chain: text(middle, root), issuer: text(other), want: []string{"root", "other"}},
		"leaf":                {reason: "it can sign nothing", chain: text(leaf), err: errNoAuthority},
		"empty":               {reason: "there is nothing", err: errNoAuthority},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := roots(tc.chain, tc.issuer)
			if !errors.Is(err, tc.err) {
				t.Fatalf("%s: error %v, want %v", tc.reason, err, tc.err)
			}
			if diff := cmp.Diff(tc.want, names(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func TestMergeBundle(t *testing.T) {
	old := issue(t, "old", true, later, nil).cert
	older := issue(t, "older", true, now.Add(time.Minute), nil).cert
	expired := issue(t, "expired", true, now, nil).cert
	current := issue(t, "current", true, later, nil).cert
	for name, tc := range map[string]struct {
		reason             string
		published, current []*x509.Certificate
		want               []string
	}{
		"first":     {reason: "nothing was published", current: []*x509.Certificate{current}, want: []string{"current"}},
		"unchanged": {reason: "once is enough", published: []*x509.Certificate{current}, current: []*x509.Certificate{current}, want: []string{"current"}},
		"rotated": {
			reason:    "what the old roots signed lives on, and the new one comes first",
			published: []*x509.Certificate{old, older}, current: []*x509.Certificate{current}, want: []string{"current", "old", "older"},
		},
		"expired": {
			reason:    "nothing it signed is valid any more",
			published: []*x509.Certificate{expired, old}, current: []*x509.Certificate{current}, want: []string{"current", "old"},
		},
		"expired, but current": {
			reason:    "it is not for the publisher to leave nothing",
			published: []*x509.Certificate{expired}, current: []*x509.Certificate{expired}, want: []string{"expired"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, names(mergeBundle(tc.published, tc.current, now))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func TestParseCertificates(t *testing.T) {
	a, b := issue(t, "a", true, later, nil), issue(t, "b", true, later, nil)
	good := text(a, b)
	key := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("x")})
	for name, tc := range map[string]struct {
		reason string
		in     []byte
		want   []string
		err    string
	}{
		"none":      {reason: "an empty Secret"},
		"space":     {reason: "editors leave it", in: []byte("\n\n"), want: nil},
		"two":       {reason: "in order", in: append(good, '\n'), want: []string{"a", "b"}},
		"a key":     {reason: "a private key must never be published", in: append(bytes.Clone(good), key...), err: "block 3 is a EC PRIVATE KEY"},
		"garbage":   {reason: "what follows would be lost", in: append(bytes.Clone(good), "hello"...), err: "number 3"},
		"truncated": {reason: "as after a crash", in: good[:len(good)-40], err: "number 2"},
		"bad bytes": {reason: "no certificate", in: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), err: "read certificate 1"},
		"huge":      {reason: "nobody has that many roots", in: make([]byte, maxBundle+1), err: "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseCertificates(tc.in)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("%s: error %v, want %q", tc.reason, err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%s: %v", tc.reason, err)
			}
			if diff := cmp.Diff(tc.want, names(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// FuzzParseCertificates feeds any bytes that a Secret may hold and demands that
// what is read can be written and read again, and holds nothing but
// certificates.
func FuzzParseCertificates(f *testing.F) {
	f.Add(text(issue(f, "a", true, later, nil)))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\neA==\n-----END EC PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		certs, err := parseCertificates(in)
		if err != nil {
			return
		}
		out := encodeCertificates(certs)
		if bytes.Contains(out, []byte("PRIVATE")) {
			t.Fatalf("a key got through:\n%s", out)
		}
		again, err := parseCertificates(out)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) != len(certs) {
			t.Fatalf("%d certificates became %d", len(certs), len(again))
		}
		if _, err := roots(in, in); err != nil && !errors.Is(err, errNoAuthority) {
			t.Fatal(err)
		}
	})
}
