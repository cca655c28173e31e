package certs

import (
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

// rootLifetime is how long a root of the platform's authority is valid.
const rootLifetime = 10 * 365 * 24 * time.Hour

// authority returns the issuer that signs everything with the platform's key
// pair, and, unless that comes from elsewhere, what makes it: an issuer that
// signs with the key it certifies, and the root made by it.
func authority(s battery.Site) []kube.Object {
	issuer := &cmapi.ClusterIssuer{
		TypeMeta:   typeMeta(cmapi.ClusterIssuerKind),
		ObjectMeta: metav1.ObjectMeta{Name: AuthorityName},
		Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: AuthorityName}}},
	}
	if !s.Config.(Config).GenerateAuthority {
		return []kube.Object{issuer}
	}
	return []kube.Object{
		issuer,
		&cmapi.Issuer{
			TypeMeta:   typeMeta(cmapi.IssuerKind),
			ObjectMeta: metav1.ObjectMeta{Name: "self-signed"},
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}},
		},
		&cmapi.Certificate{
			TypeMeta:   typeMeta(cmapi.CertificateKind),
			ObjectMeta: metav1.ObjectMeta{Name: AuthorityName},
			Spec: cmapi.CertificateSpec{
				IsCA: true,
				// People meet this name in the trust store of their machine.
				CommonName: rootName(s.Domain),
				Subject:    &cmapi.X509Subject{Organizations: []string{"Emerald"}},
				Duration:   &metav1.Duration{Duration: rootLifetime},
				SecretName: AuthorityName,
				PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm, Size: 256},
				IssuerRef:  cmmeta.IssuerReference{Name: "self-signed", Kind: cmapi.IssuerKind, Group: group},
			},
		},
	}
}

// group is the API group of cert-manager.
const group = "cert-manager.io"

func typeMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: kind}
}

// rootName returns the common name of the root, which may have 64 characters
// (RFC 5280, ub-common-name).
func rootName(domain string) string {
	const longest = 64
	name := "Emerald CA " + domain
	if len(name) > longest {
		name = name[:longest]
	}
	return name
}
