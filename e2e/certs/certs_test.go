//go:build e2e

// Package certs shows the certs battery at work on a real API server, with its
// own rights and nothing else there, and that its proofs fail without it.
package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/batteries/certs"
	"github.com/emerald-platform/emerald/batteries/gateway"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/battery/batterytest"
	"github.com/emerald-platform/emerald/e2e/fixture"
	"github.com/emerald-platform/emerald/kit/kube"
	"github.com/emerald-platform/emerald/platform/isolated"
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	isolated.Main(m)
}

// world is the one cluster of these tests, which follow each other in one story.
type world struct {
	cfg  *rest.Config
	api  client.Client
	site battery.Site
	stop func() error // ends the battery
}

func TestCerts(t *testing.T) {
	w := &world{cfg: fixture.ControlPlane(t)}
	w.site = batterytest.Site(&certs.Battery)
	w.site.Kube = w.cfg
	w.site.Log = slog.New(slog.DiscardHandler)
	w.connect(t)
	w.apply(t, render(t, &certs.Battery, w.site))
	w.start(t)
	t.Cleanup(func() { _ = w.stop() })
	for _, step := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"the proofs hold", hold},
		{"a replaced root stays trusted for what it has signed", rotate},
		{"CA bundles are injected where they are asked for", inject},
		{"what is measured joins the metrics of the process", measured},
		{"Gateways are served as soon as their API appears", gateways},
		{"without the policies bad objects get in, and the proof says so", withoutPolicies},
		{"without the controllers nothing is issued, and the proofs say so", withoutControllers},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, w) }) {
			t.Fatal("the story ends here")
		}
	}
}

// connect makes a client that knows every kind there is by now.
func (w *world) connect(t *testing.T) {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, cmapi.AddToScheme, gatewayv1.Install} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if w.api, err = client.New(w.cfg, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
}

func render(t *testing.T, b *battery.Battery, s battery.Site) []kube.Object {
	t.Helper()
	s.Config = b.Config
	objs, err := battery.Complete(b, s)
	if err != nil {
		t.Fatal(err)
	}
	return objs
}

// apply applies objects as the installer does. A kind whose definition was made
// a moment ago is waited for.
func (w *world) apply(t *testing.T, objs []kube.Object) {
	t.Helper()
	for _, o := range objs {
		u, err := kube.Desired(o)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, fmt.Sprintf("apply %s %q", u.GetKind(), u.GetName()), 20*time.Second, func(ctx context.Context) error {
			w.connect(t)
			return w.api.Apply(ctx, client.ApplyConfigurationFromUnstructured(u.DeepCopy()), client.FieldOwner(battery.Owner), client.ForceOwnership)
		})
	}
}

// start runs the battery as the platform does: with the rights of its own
// account. It returns once the battery is ready.
func (w *world) start(t *testing.T) {
	t.Helper()
	s := w.site
	s.Kube = rest.CopyConfig(w.cfg)
	s.Kube.Impersonate.UserName = "system:serviceaccount:emerald-certs:certs"
	ready := make(chan struct{}, 1)
	s.Ready = func() {
		select {
		case ready <- struct{}{}:
		default:
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return certs.Battery.Run(ctx, s) })
	w.stop = func() error { cancel(); return g.Wait() }
	began := time.Now()
	select {
	case <-ready:
		t.Logf("ready after %s", time.Since(began))
	case <-ctx.Done():
		t.Fatalf("the battery ended: %v", g.Wait())
	case <-time.After(30 * time.Second):
		t.Fatal("not ready after 30 s")
	}
}

// prove runs every proof and returns the errors by claim.
func (w *world) prove(t *testing.T) map[string]error {
	t.Helper()
	out := make([]error, len(certs.Battery.Proofs))
	var g errgroup.Group
	for i, p := range certs.Battery.Proofs {
		g.Go(func() error { out[i] = p.Check(t.Context(), w.site); return nil })
	}
	_ = g.Wait()
	byClaim := map[string]error{}
	for i, p := range certs.Battery.Proofs {
		byClaim[p.Claim] = out[i]
	}
	return byClaim
}

func hold(t *testing.T, w *world) {
	for claim, err := range w.prove(t) {
		if err != nil {
			t.Errorf("%s: %v", claim, err)
		}
	}
}

// eventually calls check until it returns nil, and fails the test with its last
// error after the deadline.
func eventually(t *testing.T, what string, deadline time.Duration, check func(context.Context) error) {
	t.Helper()
	last := errors.New("not tried")
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, deadline, true, func(ctx context.Context) (bool, error) {
		if err := check(ctx); err == nil || ctx.Err() == nil {
			last = err
		}
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: not within %s: %v", what, deadline, last)
	}
}

// secret waits for a Secret with a certificate and returns it.
func (w *world) secret(t *testing.T, ns, name string) *corev1.Secret {
	t.Helper()
	var s corev1.Secret
	eventually(t, "secret "+name, 20*time.Second, func(ctx context.Context) error {
		if err := w.api.Get(ctx, client.ObjectKey{Namespace: ns, Name: name}, &s); err != nil {
			return err
		}
		if len(s.Data[corev1.TLSCertKey]) == 0 {
			return errors.New("holds no certificate yet")
		}
		return nil
	})
	return &s
}

func leaf(t *testing.T, s *corev1.Secret) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(s.Data[corev1.TLSCertKey])
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func certificate(name, host string) *cmapi.Certificate {
	return &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: cmapi.CertificateSpec{
			SecretName: name, DNSNames: []string{host},
			IssuerRef: cmmeta.IssuerReference{Name: certs.AuthorityName, Kind: "ClusterIssuer"},
		},
	}
}

func rotate(t *testing.T, w *world) {
	ctx := t.Context()
	if err := w.api.Create(ctx, certificate("old", "old.example.com")); err != nil {
		t.Fatal(err)
	}
	old := leaf(t, w.secret(t, "default", "old"))
	before, err := certs.Roots(ctx, w.cfg)
	if err != nil {
		t.Fatal(err)
	}

	// What `cmctl renew` does.
	var root cmapi.Certificate
	eventually(t, "renew the root", 10*time.Second, func(ctx context.Context) error {
		if err := w.api.Get(ctx, client.ObjectKey{Namespace: "emerald-certs", Name: certs.AuthorityName}, &root); err != nil {
			return err
		}
		apiutil.SetCertificateCondition(&root, root.Generation, cmapi.CertificateConditionIssuing, cmmeta.ConditionTrue, "Test", "by hand")
		return w.api.Status().Update(ctx, &root)
	})
	var after []*x509.Certificate
	eventually(t, "two roots are published", 20*time.Second, func(ctx context.Context) error {
		if after, err = certs.Roots(ctx, w.cfg); err != nil {
			return err
		}
		if len(after) != 2 {
			return fmt.Errorf("%d roots", len(after))
		}
		return nil
	})
	if !after[1].Equal(before[0]) || after[0].Equal(before[0]) {
		t.Error("the new root does not come before the old one")
	}
	if err := w.api.Create(ctx, certificate("new", "new.example.com")); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	for _, c := range after {
		pool.AddCert(c)
	}
	for _, c := range []*x509.Certificate{old, leaf(t, w.secret(t, "default", "new"))} {
		if _, err := c.Verify(x509.VerifyOptions{Roots: pool}); err != nil {
			t.Errorf("%v: %v", c.DNSNames, err)
		}
	}

	// A bundle that somebody empties of the present root gets it back.
	patch := fmt.Appendf(nil, `{"spec":{"trustBundle":%q}}`, certs.PEM(before))
	bundle := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: certs.AuthorityName}}
	bundle.SetGroupVersionKind(certificatesv1.SchemeGroupVersion.WithKind("ClusterTrustBundle"))
	if err := w.api.Patch(ctx, bundle, client.RawPatch("application/merge-patch+json", patch)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the bundle is whole again", 10*time.Second, func(ctx context.Context) error {
		again, err := certs.Roots(ctx, w.cfg)
		if err != nil {
			return err
		}
		if !bytes.Equal(certs.PEM(again), certs.PEM(after)) {
			return fmt.Errorf("%d roots", len(again))
		}
		return nil
	})
}

func inject(t *testing.T, w *world) {
	ctx := t.Context()
	if err := w.api.Create(ctx, certificate("hook", "hook.default.svc")); err != nil {
		t.Fatal(err)
	}
	url := "https://192.0.2.1/"
	hook := &admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "hook", Annotations: map[string]string{"cert-manager.io/inject-ca-from": "default/hook"}},
		Webhooks: []admissionv1.ValidatingWebhook{{
			Name: "hook.example.com", AdmissionReviewVersions: []string{"v1"}, SideEffects: new(admissionv1.SideEffectClassNone),
			ClientConfig: admissionv1.WebhookClientConfig{URL: &url},
		}},
	}
	if err := w.api.Create(ctx, hook); err != nil {
		t.Fatal(err)
	}
	want := w.secret(t, "default", "hook").Data[cmmeta.TLSCAKey]
	eventually(t, "the bundle is injected", 20*time.Second, func(ctx context.Context) error {
		if err := w.api.Get(ctx, client.ObjectKeyFromObject(hook), hook); err != nil {
			return err
		}
		if !bytes.Equal(hook.Webhooks[0].ClientConfig.CABundle, want) {
			return errors.New("the CA bundle is not that of the certificate")
		}
		return nil
	})
}

func measured(t *testing.T, w *world) {
	w.secret(t, "default", "hook")
	eventually(t, "the expiry of a certificate is measured", 10*time.Second, func(context.Context) error {
		families, err := ctrlmetrics.Registry.Gather()
		if err != nil {
			return err
		}
		for _, f := range families {
			if f.GetName() == "certmanager_certificate_expiration_timestamp_seconds" {
				for _, m := range f.Metric {
					if m.GetGauge().GetValue() > float64(time.Now().Unix()) {
						return nil
					}
				}
			}
		}
		return errors.New("no such metric")
	})
}

func gateways(t *testing.T, w *world) {
	s := w.site
	s.Namespace = "emerald-gateway"
	var definitions []kube.Object
	for _, o := range render(t, &gateway.Battery, s) {
		if o.GetObjectKind().GroupVersionKind().Kind == "CustomResourceDefinition" {
			definitions = append(definitions, o)
		}
	}
	if len(definitions) == 0 {
		t.Fatal("the gateway brings no definitions")
	}
	w.apply(t, definitions)
	host := gatewayv1.Hostname("shop.example.com")
	gw := &gatewayv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "shop", Annotations: map[string]string{"cert-manager.io/cluster-issuer": certs.AuthorityName},
		},
		Spec: gatewayv1.GatewaySpec{GatewayClassName: "any", Listeners: []gatewayv1.Listener{{
			Name: "https", Hostname: &host, Port: 443, Protocol: gatewayv1.HTTPSProtocolType,
			TLS: &gatewayv1.ListenerTLSConfig{CertificateRefs: []gatewayv1.SecretObjectReference{{Name: "shop"}}},
		}}},
	}
	eventually(t, "make a Gateway", 20*time.Second, func(ctx context.Context) error {
		w.connect(t)
		return w.api.Create(ctx, gw.DeepCopy())
	})
	if c := leaf(t, w.secret(t, "default", "shop")); c.VerifyHostname(string(host)) != nil {
		t.Errorf("the Gateway's certificate is for %v", c.DNSNames)
	}
}

// fails wants these words in the claims whose proofs fail, one each, and every
// other proof to hold.
func (w *world) fails(t *testing.T, words ...string) {
	t.Helper()
	for claim, err := range w.prove(t) {
		want := false
		for _, word := range words {
			want = want || strings.Contains(claim, word)
		}
		if (err != nil) != want {
			t.Errorf("%s: %v", claim, err)
		}
	}
}

func withoutPolicies(t *testing.T, w *world) {
	policies := []client.Object{}
	for _, o := range render(t, &certs.Battery, w.site) {
		if strings.HasSuffix(o.GetObjectKind().GroupVersionKind().Kind, "AdmissionPolicyBinding") {
			policies = append(policies, o)
		}
	}
	for _, o := range policies {
		if err := w.api.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the policies are out of force", 20*time.Second, func(ctx context.Context) error {
		c := certificate("bad", "https://bad")
		return w.api.Create(ctx, c, client.DryRunAll)
	})
	w.fails(t, "What could never be issued is refused")
}

func withoutControllers(t *testing.T, w *world) {
	if err := w.stop(); err != nil {
		t.Errorf("the battery ended with %v, want nil", err)
	}
	w.fails(t, "is there within seconds", "What could never be issued is refused", "without anybody making one", "is renewed when its time comes")
}
