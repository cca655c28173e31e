package certs

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	cmclient "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned"
	cminformers "github.com/cert-manager/cert-manager/pkg/client/informers/externalversions"
	"golang.org/x/sync/errgroup"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/emerald-platform/emerald/battery"
)

// publisher keeps the ClusterTrustBundle in step with the authority's Secret.
type publisher struct {
	namespace string
	client    kubernetes.Interface
	secrets   cache.SharedIndexInformer
	bundles   cache.SharedIndexInformer
	issuers   cache.SharedIndexInformer
	changed   chan struct{} // one is waiting whenever something has changed
	log       *slog.Logger
	ready     func()
}

// look is how often expired roots are looked for.
const look = time.Hour

func newPublisher(s battery.Site) (*publisher, error) {
	client, err := kubernetes.NewForConfig(s.Kube)
	if err != nil {
		return nil, fmt.Errorf("reach the API: %w", err)
	}
	issuers, err := cmclient.NewForConfig(s.Kube)
	if err != nil {
		return nil, fmt.Errorf("reach the API: %w", err)
	}
	// Everything it looks at has the authority's name.
	named := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, AuthorityName).String()
	}
	own := informers.NewSharedInformerFactoryWithOptions(client, look, informers.WithTweakListOptions(named), informers.WithNamespace(s.Namespace))
	p := &publisher{
		namespace: s.Namespace,
		client:    client,
		secrets:   own.Core().V1().Secrets().Informer(),
		bundles:   own.Certificates().V1().ClusterTrustBundles().Informer(),
		issuers: cminformers.NewSharedInformerFactoryWithOptions(issuers, look, cminformers.WithTweakListOptions(named)).
			Certmanager().V1().ClusterIssuers().Informer(),
		changed: make(chan struct{}, 1),
		log:     s.Log,
		ready:   s.Ready,
	}
	notify := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { p.notify() },
		UpdateFunc: func(any, any) { p.notify() },
		DeleteFunc: func(any) { p.notify() },
	}
	for _, i := range p.all() {
		if _, err := i.AddEventHandler(notify); err != nil {
			return nil, fmt.Errorf("watch the authority: %w", err)
		}
	}
	return p, nil
}

func (p *publisher) all() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{p.secrets, p.bundles, p.issuers}
}

func (p *publisher) notify() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// run publishes until ctx ends.
func (p *publisher) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	var synced []cache.InformerSynced
	for _, i := range p.all() {
		g.Go(func() error { i.RunWithContext(ctx); return nil })
		synced = append(synced, i.HasSynced)
	}
	g.Go(func() error {
		if !cache.WaitForCacheSync(ctx.Done(), synced...) {
			return nil
		}
		p.publishAlways(ctx)
		return nil
	})
	return g.Wait()
}

// publishAlways publishes whenever something has changed, and again after a
// moment when that failed.
func (p *publisher) publishAlways(ctx context.Context) {
	p.notify()
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.changed:
		case <-again:
		}
		again = nil
		done, err := p.publish(ctx)
		if err != nil && ctx.Err() == nil {
			p.log.Warn("publish the authority", "error", err)
			again = time.After(time.Second)
		}
		if done && p.signs() {
			p.ready()
		}
	}
}

// publish brings the bundle up to date. It returns false while there is no
// authority yet.
func (p *publisher) publish(ctx context.Context) (bool, error) {
	obj, found, err := p.secrets.GetStore().GetByKey(p.namespace + "/" + AuthorityName)
	if err != nil {
		return false, fmt.Errorf("find secret %s/%s: %w", p.namespace, AuthorityName, err)
	}
	if !found {
		return false, nil
	}
	secret := obj.(*corev1.Secret)
	current, err := roots(secret.Data[corev1.TLSCertKey], secret.Data[cmmeta.TLSCAKey])
	if err != nil {
		return false, fmt.Errorf("secret %s/%s: %w", p.namespace, AuthorityName, err)
	}
	bundles := p.client.CertificatesV1().ClusterTrustBundles()
	obj, found, err = p.bundles.GetStore().GetByKey(AuthorityName)
	if err != nil {
		return false, fmt.Errorf("find ClusterTrustBundle %q: %w", AuthorityName, err)
	}
	if !found {
		_, err := bundles.Create(ctx, &certificatesv1.ClusterTrustBundle{
			ObjectMeta: metav1.ObjectMeta{Name: AuthorityName, Labels: map[string]string{battery.LabelBattery: "certs"}},
			Spec:       certificatesv1.ClusterTrustBundleSpec{TrustBundle: string(encodeCertificates(current))},
		}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			// The watch will show it.
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("make ClusterTrustBundle %q: %w", AuthorityName, err)
		}
		p.log.Info("published the authority", "roots", len(current))
		return true, nil
	}
	bundle := obj.(*certificatesv1.ClusterTrustBundle)
	published, err := parseCertificates([]byte(bundle.Spec.TrustBundle))
	if err != nil {
		return false, fmt.Errorf("ClusterTrustBundle %q: %w", AuthorityName, err)
	}
	merged := mergeBundle(published, current, time.Now())
	text := string(encodeCertificates(merged))
	if text == bundle.Spec.TrustBundle {
		return true, nil
	}
	update := bundle.DeepCopy()
	update.Spec.TrustBundle = text
	if _, err := bundles.Update(ctx, update, metav1.UpdateOptions{}); err != nil {
		return false, fmt.Errorf("update ClusterTrustBundle %q: %w", AuthorityName, err)
	}
	p.log.Info("published the authority", "roots", len(merged))
	return true, nil
}

// signs tells whether the platform's issuer is ready to sign.
func (p *publisher) signs() bool {
	obj, found, err := p.issuers.GetStore().GetByKey(AuthorityName)
	if err != nil || !found {
		return false
	}
	for _, c := range obj.(*cmapi.ClusterIssuer).Status.Conditions {
		if c.Type == cmapi.IssuerConditionReady {
			return c.Status == cmmeta.ConditionTrue
		}
	}
	return false
}
