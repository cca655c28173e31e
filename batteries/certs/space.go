package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	cmclient "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/poll"
)

// space is a namespace of its own in which a proof works as a user would.
type space struct {
	kube  kubernetes.Interface
	certs cmclient.Interface
	name  string
	site  battery.Site
}

// within makes a space, calls check in it, and removes it whatever happens.
func within(ctx context.Context, s battery.Site, check func(context.Context, *space) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	sp := &space{site: s}
	if sp.kube, err = kubernetes.NewForConfig(s.Kube); err != nil {
		return fmt.Errorf("reach the API: %w", err)
	}
	if sp.certs, err = cmclient.NewForConfig(s.Kube); err != nil {
		return fmt.Errorf("reach the API: %w", err)
	}
	ns, err := sp.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "proof-certs-",
		Labels:       map[string]string{"pod-security.kubernetes.io/enforce": "restricted", "emerald.dev/proof": "certs"},
	}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("make a namespace for the proof: %w", err)
	}
	sp.name = ns.Name
	defer func() {
		// ctx may have ended; what the proof made must go all the same.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if e := sp.kube.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{}); e != nil && err == nil {
			err = fmt.Errorf("remove namespace %q: %w", ns.Name, e)
		}
	}()
	return check(ctx, sp)
}

// host is a name under the platform's domain that nobody else uses.
func (s *space) host() string { return s.name + "." + s.site.Domain }

// certificate returns a Certificate of the platform's authority for the space's
// host.
func (s *space) certificate(name string) *cmapi.Certificate {
	return &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: cmapi.CertificateSpec{
			SecretName: name,
			DNSNames:   []string{s.host()},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm, Size: 256},
			IssuerRef:  cmmeta.IssuerReference{Name: AuthorityName, Kind: cmapi.ClusterIssuerKind, Group: group},
		},
	}
}

// request makes a Certificate.
func (s *space) request(ctx context.Context, c *cmapi.Certificate) error {
	if _, err := s.certs.CertmanagerV1().Certificates(s.name).Create(ctx, c, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("make certificate %s/%s: %w", s.name, c.Name, err)
	}
	return nil
}

// keyPair waits until a Secret holds a key pair and returns it.
func (s *space) keyPair(ctx context.Context, secret string, patience time.Duration) (tls.Certificate, error) {
	var pair tls.Certificate
	err := poll.Until(ctx, 50*time.Millisecond, patience, func(ctx context.Context) (bool, error) {
		got, err := s.kube.CoreV1().Secrets(s.name).Get(ctx, secret, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		pair, err = pairOf(got)
		return err == nil, err
	})
	if err != nil {
		return pair, fmt.Errorf("wait for secret %s/%s with a certificate (%s): %w", s.name, secret, s.progress(ctx), err)
	}
	return pair, nil
}

// pairOf returns the key pair of a TLS Secret; the certificate is parsed and
// belongs to the key.
func pairOf(secret *corev1.Secret) (tls.Certificate, error) {
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return pair, fmt.Errorf("secret %s/%s: %w", secret.Namespace, secret.Name, err)
	}
	return pair, nil
}

// progress says what the certificates of the space wait for.
func (s *space) progress(ctx context.Context) string {
	list, err := s.certs.CertmanagerV1().Certificates(s.name).List(context.WithoutCancel(ctx), metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	out := "no certificate was made"
	for _, c := range list.Items {
		out = "certificate " + c.Name
		for _, cond := range c.Status.Conditions {
			out += ": " + cond.Message
		}
	}
	return out
}

// bundle returns the published roots.
func (s *space) bundle(ctx context.Context) (*x509.CertPool, error) {
	certs, err := Roots(ctx, s.site.Kube)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool, nil
}
