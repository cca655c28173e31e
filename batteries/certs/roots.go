package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// ErrNoRoots is returned by [Roots] where the platform has published none.
var ErrNoRoots = errors.New("the platform has no authority yet")

// Roots returns the roots of the platform's authority as it publishes them, the
// present one first. `emerald trust` calls it with the user's rights.
func Roots(ctx context.Context, cfg *rest.Config) ([]*x509.Certificate, error) {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach the API: %w", err)
	}
	bundle, err := client.CertificatesV1().ClusterTrustBundles().Get(ctx, AuthorityName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, ErrNoRoots
	}
	if err != nil {
		return nil, fmt.Errorf("read ClusterTrustBundle %q: %w", AuthorityName, err)
	}
	certs, err := parseCertificates([]byte(bundle.Spec.TrustBundle))
	if err != nil {
		return nil, fmt.Errorf("ClusterTrustBundle %q: %w", AuthorityName, err)
	}
	for _, c := range certs {
		if !c.IsCA {
			return nil, fmt.Errorf("ClusterTrustBundle %q holds %q, which is no authority", AuthorityName, c.Subject)
		}
	}
	return certs, nil
}

// PEM returns certificates as one PEM bundle.
func PEM(certs []*x509.Certificate) []byte { return encodeCertificates(certs) }
