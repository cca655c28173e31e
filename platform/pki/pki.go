// Package pki holds the platform's keys and certificates: it makes them on the
// first start, and renews them while everything runs.
//
// It promises that every certificate in the directory is valid for at least a
// third of its life whenever a [PKI] has been opened and Renew runs, and that a
// file is replaced whole or not at all. Its users read the files anew on each
// handshake, so nothing is ever restarted to renew.
//
// It refuses to replace an authority: whoever loses one has lost the cluster's
// identity, and the error says so.
//
// Invariant: a private key never leaves its file, mode 0600, and is written
// before the certificate that names it.
package pki

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/client-go/util/keyutil"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 90 * 24 * time.Hour

	// backdate absorbs clocks that differ a little between machines.
	backdate = 5 * time.Minute

	// renewEvery is how often Renew looks for certificates that are due.
	renewEvery = time.Hour
)

// Identity is what the certificates of one machine say about it.
type Identity struct {
	// Node is the machine's name in the cluster.
	Node string
	// Addresses are the machine's own IP addresses, the first one being the
	// one others reach it by.
	Addresses []net.IP
	// ServiceAddress is the cluster IP of the service "kubernetes".
	ServiceAddress net.IP
	// ClusterDomain is the suffix of service names: "cluster.local".
	ClusterDomain string
}

// PKI is an open directory of keys and certificates. Its methods may be called
// concurrently with each other, but only one process may have it open.
type PKI struct {
	dir    string
	id     Identity
	now    func() time.Time
	leaves []leaf
}

// Open makes what is missing in dir, renews what is due, and returns the open
// directory. The directory is created with mode 0700.
func Open(dir string, id Identity) (*PKI, error) {
	return open(dir, id, time.Now)
}

func open(dir string, id Identity, now func() time.Time) (*PKI, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the key directory: %w", err)
	}
	p := &PKI{dir: dir, id: id, now: now, leaves: leavesFor(id)}
	for _, name := range authorities {
		if err := p.ensureAuthority(name); err != nil {
			return nil, err
		}
	}
	if err := p.ensureServiceAccountKey(); err != nil {
		return nil, err
	}
	if _, err := p.renewDue(); err != nil {
		return nil, err
	}
	return p, nil
}

// Cert returns the path of the certificate called name, for example
// [ClusterCA] or [APIServer].
func (p *PKI) Cert(name string) string { return filepath.Join(p.dir, name+".crt") }

// Key returns the path of the private key called name.
func (p *PKI) Key(name string) string { return filepath.Join(p.dir, name+".key") }

// Renew replaces certificates as they become due, until ctx ends. It calls
// changed with the names of what it replaced; nil is allowed.
func (p *PKI) Renew(ctx context.Context, log *slog.Logger, changed func(names []string)) error {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		names, err := p.renewDue()
		if err != nil {
			// The old certificates still have a third of their life: trying
			// again in an hour is better than stopping the platform.
			log.Error("renew certificates", "error", err)
			continue
		}
		if len(names) > 0 {
			log.Info("renewed certificates", "names", names)
			if changed != nil {
				changed(names)
			}
		}
	}
}

// renewDue makes every leaf that is missing, wrong or in the last third of its
// life, and returns the names of those.
func (p *PKI) renewDue() ([]string, error) {
	var names []string
	for _, l := range p.leaves {
		if p.fresh(l) {
			continue
		}
		if err := p.issue(l); err != nil {
			return names, fmt.Errorf("issue certificate %q: %w", l.name, err)
		}
		names = append(names, l.name)
	}
	return names, nil
}

// fresh tells whether the leaf on disk is good for at least a third of its
// life and still says what it should.
func (p *PKI) fresh(l leaf) bool {
	cert, err := readCert(p.Cert(l.name))
	if err != nil {
		return false
	}
	key, err := readKey(p.Key(l.name))
	if err != nil || !samePublicKey(key, cert) {
		return false
	}
	ca, err := readCert(p.Cert(l.authority))
	if err != nil || cert.CheckSignatureFrom(ca) != nil {
		return false
	}
	life := cert.NotAfter.Sub(cert.NotBefore)
	if p.now().After(cert.NotAfter.Add(-life/3)) || p.now().Before(cert.NotBefore) {
		return false
	}
	sameIPs := slices.EqualFunc(cert.IPAddresses, l.ips, func(a, b net.IP) bool { return a.Equal(b) })
	return sameIPs && slices.Equal(cert.DNSNames, l.dns) &&
		cert.Subject.CommonName == l.user && slices.Equal(cert.Subject.Organization, l.groups)
}

func (p *PKI) issue(l leaf) error {
	ca, err := readCert(p.Cert(l.authority))
	if err != nil {
		return err
	}
	caKey, err := readKey(p.Key(l.authority))
	if err != nil {
		return err
	}
	// A renewal keeps the key, so that replacing one file replaces the pair: a
	// handshake in between never sees a key and a certificate that differ.
	key, err := readKey(p.Key(l.name))
	if err != nil {
		fresh, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		if err := writeKey(p.Key(l.name), fresh); err != nil {
			return err
		}
		key = fresh
	}
	serial, err := newSerial()
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: l.user, Organization: l.groups},
		NotBefore:    p.now().Add(-backdate),
		NotAfter:     p.now().Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  l.usages,
		DNSNames:     l.dns,
		IPAddresses:  l.ips,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), caKey)
	if err != nil {
		return err
	}
	return writeCert(p.Cert(l.name), der)
}

// ensureAuthority makes the authority called name unless it exists. One that
// exists but cannot be read is an error, never replaced.
func (p *PKI) ensureAuthority(name string) error {
	cert, certErr := readCert(p.Cert(name))
	_, keyErr := readKey(p.Key(name))
	if certErr == nil && keyErr == nil {
		if p.now().After(cert.NotAfter) {
			return fmt.Errorf("the authority %q in %s ended on %s: check the machine's clock, or restore the directory from a backup",
				name, p.dir, cert.NotAfter.Format(time.DateOnly))
		}
		return nil
	}
	// A key without its certificate is what a power loss between the two
	// writes leaves: nothing was signed with it yet.
	if certErr != nil && !errors.Is(certErr, fs.ErrNotExist) {
		return fmt.Errorf("read the authority %q, which is the cluster's identity: %w: restore %s from a backup, or start over with: emerald down --wipe",
			name, certErr, p.dir)
	}
	if certErr == nil {
		return fmt.Errorf("read the key of the authority %q: %w: restore %s from a backup, or start over with: emerald down --wipe",
			name, keyErr, p.dir)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the authority %q: %w", name, err)
	}
	serial, err := newSerial()
	if err != nil {
		return fmt.Errorf("make the authority %q: %w", name, err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "emerald-" + name},
		NotBefore:             p.now().Add(-backdate),
		NotAfter:              p.now().Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("make the authority %q: %w", name, err)
	}
	if err := writeKey(p.Key(name), key); err != nil {
		return fmt.Errorf("make the authority %q: %w", name, err)
	}
	if err := writeCert(p.Cert(name), der); err != nil {
		return fmt.Errorf("make the authority %q: %w", name, err)
	}
	return nil
}

// ensureServiceAccountKey makes the key that signs service account tokens.
func (p *PKI) ensureServiceAccountKey() error {
	path := p.Key(ServiceAccounts)
	if _, err := readKey(path); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the service account key: %w: restore it from a backup, or have a new one made, which ends the tokens that pods hold: rm %s", err, path)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the service account key: %w", err)
	}
	if err := writeKey(path, key); err != nil {
		return fmt.Errorf("make the service account key: %w", err)
	}
	return nil
}

func samePublicKey(key crypto.Signer, cert *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}

func newSerial() (*big.Int, error) {
	// RFC 5280 section 4.1.2.2 allows 20 octets; 127 random bits are positive
	// and unique.
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func readKey(path string) (crypto.Signer, error) {
	key, err := keyutil.PrivateKeyFromFile(path)
	if err != nil {
		// keyutil hides the cause behind its own text.
		if _, statErr := os.Stat(path); errors.Is(statErr, fs.ErrNotExist) {
			return nil, statErr
		}
		return nil, fmt.Errorf("read %s: it holds no private key", path)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read %s: the key cannot sign", path)
	}
	return signer, nil
}
