package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// maxBundle is more than any sensible bundle has: a limit for what is parsed.
const maxBundle = 1 << 20

// errNoAuthority is returned for a key pair that can sign nothing.
var errNoAuthority = errors.New("holds no certificate of an authority: issue it with isCA: true")

// parseCertificates returns the certificates of a PEM bundle, in order. It is
// strict: anything but well-formed certificates and white space between them is
// an error, since what cannot be read cannot be kept.
func parseCertificates(bundle []byte) ([]*x509.Certificate, error) {
	if len(bundle) > maxBundle {
		return nil, fmt.Errorf("read certificates: %d bytes are more than the %d allowed", len(bundle), maxBundle)
	}
	var out []*x509.Certificate
	for rest := bundle; len(bytes.TrimSpace(rest)) > 0; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			return nil, fmt.Errorf("read certificates: no PEM block where number %d should be", len(out)+1)
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("read certificates: block %d is a %s", len(out)+1, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read certificate %d: %w", len(out)+1, err)
		}
		out = append(out, cert)
	}
	return out, nil
}

// roots returns what must be trusted so that everything signed with a key pair
// is: of its chain and its issuer's certificate, as a TLS Secret of cert-manager
// holds them, the self-signed ones; where there is none, as with an intermediate
// from elsewhere, the last of the chain.
func roots(chain, issuer []byte) ([]*x509.Certificate, error) {
	var authorities []*x509.Certificate
	for _, raw := range [][]byte{chain, issuer} {
		certs, err := parseCertificates(raw)
		if err != nil {
			return nil, err
		}
		for _, c := range certs {
			if c.BasicConstraintsValid && c.IsCA && !contains(authorities, c) {
				authorities = append(authorities, c)
			}
		}
	}
	if len(authorities) == 0 {
		return nil, errNoAuthority
	}
	selfSigned := slices.DeleteFunc(slices.Clone(authorities), func(c *x509.Certificate) bool {
		return c.CheckSignatureFrom(c) != nil
	})
	if len(selfSigned) > 0 {
		return selfSigned, nil
	}
	return authorities[len(authorities)-1:], nil
}

// mergeBundle returns the bundle that trusts current and every root published
// before that has not expired: certificates of an old root stay good while they
// are replaced. The current roots come first.
func mergeBundle(published, current []*x509.Certificate, now time.Time) []*x509.Certificate {
	out := slices.Clone(current)
	for _, c := range published {
		if now.Before(c.NotAfter) && !contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}

func contains(certs []*x509.Certificate, c *x509.Certificate) bool {
	return slices.ContainsFunc(certs, c.Equal)
}

// encodeCertificates is the reverse of parseCertificates.
func encodeCertificates(certs []*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certs {
		// Writing to memory does not fail.
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return out.Bytes()
}
