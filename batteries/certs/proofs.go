package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/poll"
)

var proofs = []battery.Proof{{
	Feature: "TLS certificates",
	Claim:   "A certificate asked of the platform's authority is there within seconds, and the published roots vouch for it and for nothing else.",
	Check:   proveIssued,
}, {
	Feature: "TLS certificates",
	Claim:   "What could never be issued is refused with what to write instead, and who asks for what cannot be forged.",
	Check:   proveRefused,
}, {
	Feature: "TLS certificates",
	Claim:   "A host that asks for TLS gets its certificate without anybody making one.",
	Check:   proveAutomatic,
}, {
	Feature: "TLS certificates",
	Claim:   "A certificate is renewed when its time comes, under a server that uses it, with no failed handshake.",
	Check:   proveRenewed,
}}

// patience is how long a certificate of the platform's own authority may take.
const patience = 20 * time.Second

func proveIssued(ctx context.Context, s battery.Site) error {
	return within(ctx, s, func(ctx context.Context, sp *space) error {
		if err := sp.request(ctx, sp.certificate("web")); err != nil {
			return err
		}
		pair, err := sp.keyPair(ctx, "web", patience)
		if err != nil {
			return err
		}
		roots, err := sp.bundle(ctx)
		if err != nil {
			return err
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: sp.host()}); err != nil {
			return fmt.Errorf("check the certificate for %q by the published roots: %w", sp.host(), err)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "not-" + sp.host()}); err == nil {
			return fmt.Errorf("the certificate for %q is good for %q too", sp.host(), "not-"+sp.host())
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: x509.NewCertPool(), DNSName: sp.host()}); err == nil {
			return errors.New("the certificate is trusted without the published roots")
		}
		if pair.Leaf.IsCA {
			return errors.New("the certificate of a host can sign others")
		}
		return sp.waitsForUnknownIssuer(ctx)
	})
}

// waitsForUnknownIssuer shows that nobody signs for an issuer that does not
// exist, and that the one who waits is told.
func (s *space) waitsForUnknownIssuer(ctx context.Context) error {
	c := s.certificate("orphan")
	c.Spec.IssuerRef.Name = "nobody"
	if err := s.request(ctx, c); err != nil {
		return err
	}
	err := poll.Until(ctx, 50*time.Millisecond, patience, func(ctx context.Context) (bool, error) {
		requests, err := s.certs.CertmanagerV1().CertificateRequests(s.name).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		for _, r := range requests.Items {
			if r.Spec.IssuerRef.Name != "nobody" {
				continue
			}
			if len(r.Status.Certificate) > 0 {
				return false, errors.New("somebody signed for an issuer that does not exist")
			}
			for _, cond := range r.Status.Conditions {
				if cond.Type == cmapi.CertificateRequestConditionReady && cond.Status == cmmeta.ConditionFalse && strings.Contains(cond.Message, "not found") {
					return true, nil
				}
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("wait until certificate %s/orphan is told that its issuer does not exist: %w", s.name, err)
	}
	return nil
}

// heeded is how long an API server takes to heed a policy that is new: it looks
// for them once a second.
const heeded = 5 * time.Second

// seen is how long an API server refuses what [requester] would change, after the
// definitions are new: it looks for them every five seconds.
const seen = 5 * time.Second

// soon tries what must be refused until it is or ctx ends, and returns nil when it
// was accepted to the end.
func soon(ctx context.Context, try func() error) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := try(); err != nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func proveRefused(ctx context.Context, s battery.Site) error {
	return within(ctx, s, func(ctx context.Context, sp *space) error {
		certificates := sp.certs.CertmanagerV1().Certificates(sp.name)
		dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
		var errs []error
		soonEnough, cancel := context.WithTimeout(ctx, heeded)
		defer cancel()
		refused := func(what, hint string, try func() error) {
			err := soon(soonEnough, try)
			switch {
			case err == nil:
				errs = append(errs, fmt.Errorf("%s was accepted", what))
			case !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), hint):
				errs = append(errs, fmt.Errorf("%s was refused without saying %q: %w", what, hint, err))
			}
		}

		if _, err := certificates.Create(ctx, sp.certificate("good"), dry); err != nil {
			errs = append(errs, fmt.Errorf("a good certificate was refused: %w", err))
		}
		c := sp.certificate("short")
		c.Spec.Duration = &metav1.Duration{Duration: time.Minute}
		dryRun := func(c *cmapi.Certificate) func() error {
			return func() error { _, err := certificates.Create(ctx, c, dry); return err }
		}
		refused("a certificate for one minute", "spec.duration is shorter than 1h", dryRun(c))

		c = sp.certificate("url")
		c.Spec.DNSNames = []string{"https://" + sp.host()}
		refused("a URL as a host name", "write it without scheme, port or path", dryRun(c))

		c = sp.certificate("weak")
		c.Spec.PrivateKey = &cmapi.CertificatePrivateKey{Algorithm: cmapi.RSAKeyAlgorithm, Size: 1024}
		refused("a weak key", "2048 to 8192 bits", dryRun(c))

		issuer := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "two"}, Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{
			SelfSigned: &cmapi.SelfSignedIssuer{}, CA: &cmapi.CAIssuer{SecretName: "ca"},
		}}}
		refused("an issuer of two kinds", "exactly one kind of issuer", func() error {
			_, err := sp.certs.CertmanagerV1().Issuers(sp.name).Create(ctx, issuer, dry)
			return err
		})

		errs = append(errs, sp.keepsRequester(ctx))
		return errors.Join(errs...)
	})
}

// keepsRequester shows that a request carries the name of who made it, whatever
// that one writes into it, and cannot be changed afterwards.
func (s *space) keepsRequester(ctx context.Context) error {
	requests := s.certs.CertmanagerV1().CertificateRequests(s.name)
	var made *cmapi.CertificateRequest
	forged := &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "forged"},
		Spec: cmapi.CertificateRequestSpec{
			// Nobody is there to sign it.
			IssuerRef: cmmeta.IssuerReference{Name: "nobody", Kind: "Issuer", Group: group},
			Request:   []byte("forged"), Username: "system:admin-by-my-own-word", Groups: []string{"system:masters"},
		},
	}
	// While the definitions are new it is refused, also by the policy that is
	// sooner known than the one that makes it right.
	var err error
	_ = poll.Until(ctx, time.Second, 2*seen, func(ctx context.Context) (bool, error) {
		made, err = requests.Create(ctx, forged, metav1.CreateOptions{})
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("make a certificate request: %w", err)
	}
	if made.Spec.Username == "system:admin-by-my-own-word" || made.Spec.Username == "" {
		return fmt.Errorf("the request says it was made by %q", made.Spec.Username)
	}
	patch := []byte(`{"spec":{"username":"another"}}`)
	if _, err := requests.Patch(ctx, made.Name, types.MergePatchType, patch, metav1.PatchOptions{}); !apierrors.IsInvalid(err) {
		return fmt.Errorf("a certificate request was changed after it was made: %w", errors.Join(errors.New("not refused"), err))
	}
	return nil
}

// proveAutomatic asks for TLS in the ways that name no certificate: an Ingress,
// as on any cluster, and a listener of the platform's gateway where there is one.
func proveAutomatic(ctx context.Context, s battery.Site) error {
	return within(ctx, s, func(ctx context.Context, sp *space) error {
		roots, err := sp.bundle(ctx)
		if err != nil {
			return err
		}
		host := "ingress." + sp.host()
		if err := sp.ingress(ctx, "asks", host, true); err != nil {
			return err
		}
		if err := sp.ingress(ctx, "does-not-ask", "other."+sp.host(), false); err != nil {
			return err
		}
		pair, err := sp.keyPair(ctx, "asks", patience)
		if err != nil {
			return err
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
			return fmt.Errorf("check the certificate for %q: %w", host, err)
		}
		// By now the one who did not ask would have been served, too.
		list, err := sp.certs.CertmanagerV1().Certificates(sp.name).List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("list certificates: %w", err)
		}
		if len(list.Items) != 1 {
			return fmt.Errorf("%d certificates were made where one was asked for", len(list.Items))
		}
		_, err = sp.listener(ctx, roots)
		return err
	})
}

// ingress makes an Ingress with TLS for host and the Secret of its own name.
func (s *space) ingress(ctx context.Context, name, host string, ask bool) error {
	in := &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: networkingv1.IngressSpec{
			TLS: []networkingv1.IngressTLS{{Hosts: []string{host}, SecretName: name}},
			DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
				Name: "nobody", Port: networkingv1.ServiceBackendPort{Number: 80},
			}},
		},
	}
	if ask {
		in.Annotations = map[string]string{cmapi.IngressClusterIssuerNameAnnotationKey: AuthorityName}
	}
	if _, err := s.kube.NetworkingV1().Ingresses(s.name).Create(ctx, in, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("make ingress %s/%s: %w", s.name, name, err)
	}
	return nil
}
