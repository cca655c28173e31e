package pki

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"

	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"

	"github.com/emerald-platform/emerald/kit/durable"
)

// writeCert writes one certificate, given in DER, as PEM.
func writeCert(path string, der []byte) error {
	block := pem.EncodeToMemory(&pem.Block{Type: certutil.CertificateBlockType, Bytes: der})
	return durable.WriteFile(path, block, 0o600)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	block, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, block, 0o600)
}

// readCert returns the first certificate of a PEM file.
func readCert(path string) (*x509.Certificate, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	certs, err := certutil.ParseCertsPEM(raw)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return certs[0], nil
}
