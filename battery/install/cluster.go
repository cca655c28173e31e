package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

// cluster is the way to the API server: one connection and one idea of what
// kinds there are, shared by all.
type cluster struct {
	objects metadata.Interface // writes whole objects, reads no more than needed
	dynamic dynamic.Interface
	client  kubernetes.Interface
	core    corev1client.CoreV1Interface

	mapper *restmapper.DeferredDiscoveryRESTMapper

	mu    sync.Mutex
	kinds map[schema.GroupKind]*meta.RESTMapping // defined by batteries
}

func newCluster(cfg *rest.Config) (*cluster, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1 // the API server's own flow control is fairer
	cfg.UserAgent = battery.Owner + "-installer"
	// Warnings are for the people who write the objects; the batteries' tests
	// would be the place to see them.
	cfg.WarningHandler = rest.NoWarnings{}
	httpClient, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	c := &cluster{kinds: map[schema.GroupKind]*meta.RESTMapping{}}
	if c.objects, err = metadata.NewForConfigAndClient(cfg, httpClient); err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	if c.dynamic, err = dynamic.NewForConfigAndClient(cfg, httpClient); err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	if c.client, err = kubernetes.NewForConfigAndClient(cfg, httpClient); err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	c.core = c.client.CoreV1()
	found, err := discovery.NewDiscoveryClientForConfigAndClient(cfg, httpClient)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(found))
	return c, nil
}

// resource returns where objects of a kind live. A kind that the API server did
// not have when it was last asked is asked for again.
func (c *cluster) resource(gvk schema.GroupVersionKind) (*meta.RESTMapping, error) {
	c.mu.Lock()
	known := c.kinds[gvk.GroupKind()]
	c.mu.Unlock()
	if known != nil {
		m := *known
		m.Resource.Version, m.GroupVersionKind.Version = gvk.Version, gvk.Version
		return &m, nil
	}
	m, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if meta.IsNoMatchError(err) {
		c.mapper.Reset()
		m, err = c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("find the kind %s: %w", gvk.GroupKind(), err)
	}
	return m, nil
}

// learn remembers a kind that a definition has just established, which saves
// asking the API server for everything it has.
func (c *cluster) learn(crd *apiextensionsv1.CustomResourceDefinition) {
	gvk := schema.GroupVersionKind{Group: crd.Spec.Group, Kind: crd.Spec.Names.Kind}
	scope := meta.RESTScopeRoot
	if crd.Spec.Scope == apiextensionsv1.NamespaceScoped {
		scope = meta.RESTScopeNamespace
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kinds[gvk.GroupKind()] = &meta.RESTMapping{
		Resource:         schema.GroupVersionResource{Group: gvk.Group, Resource: crd.Spec.Names.Plural},
		GroupVersionKind: gvk, Scope: scope,
	}
}

// at returns the client for one object.
func (c *cluster) at(r ref) (metadata.ResourceInterface, *meta.RESTMapping, error) {
	m, err := c.resource(r.kind())
	if err != nil {
		return nil, nil, err
	}
	if m.Scope.Name() == meta.RESTScopeNameNamespace {
		return c.objects.Resource(m.Resource).Namespace(r.Namespace), m, nil
	}
	if r.Namespace != "" {
		return nil, nil, fmt.Errorf("%s names a namespace, but lives in none", r)
	}
	return c.objects.Resource(m.Resource), m, nil
}

// applyTimeout is how long one object may take; an API server that is not dead
// needs milliseconds.
const applyTimeout = 30 * time.Second

// apply makes the cluster's object what o says, taking over every field that o
// names, and returns what the cluster calls the result.
func (c *cluster) apply(ctx context.Context, o kube.Object) (*metav1.PartialObjectMetadata, error) {
	desired, err := kube.Desired(o)
	if err != nil {
		return nil, err
	}
	r := refTo(o)
	raw, err := json.Marshal(desired.Object)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", r, err)
	}
	at, _, err := c.at(r)
	if err != nil {
		return nil, fmt.Errorf("apply %s: %w", r, err)
	}
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	force := true
	got, err := at.Patch(ctx, r.Name, types.ApplyPatchType, raw, metav1.PatchOptions{
		FieldManager: battery.Owner, Force: &force, FieldValidation: metav1.FieldValidationStrict,
	})
	if err != nil {
		return nil, fmt.Errorf("apply %s: %w", r, err)
	}
	return got, nil
}

// establish waits until the API server serves the kinds of a definition that
// was applied, and learns them.
func (c *cluster) establish(ctx context.Context, name string) error {
	crds := c.dynamic.Resource(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"))
	one := metav1.ListOptions{FieldSelector: "metadata.name=" + name}
	for {
		w, err := crds.Watch(ctx, one)
		if err != nil {
			return fmt.Errorf("wait for the definition %q: %w", name, err)
		}
		for event := range w.ResultChan() {
			u, ok := event.Object.(*unstructured.Unstructured)
			if !ok {
				break // the server asks us to watch again
			}
			crd, err := established(u)
			if err != nil {
				w.Stop()
				return err
			}
			if crd != nil {
				w.Stop()
				return c.serve(ctx, crd)
			}
		}
		w.Stop()
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the definition %q: %w", name, ctx.Err())
		case <-time.After(rewatch):
		}
	}
}

// rewatch is the pause before a watch that the server ended is begun anew.
const rewatch = 50 * time.Millisecond

// established decodes a definition; it returns nil while that is not in force.
func established(u *unstructured.Unstructured) (*apiextensionsv1.CustomResourceDefinition, error) {
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, crd); err != nil {
		return nil, fmt.Errorf("decode the definition %q: %w", u.GetName(), err)
	}
	var done *apiextensionsv1.CustomResourceDefinition
	for _, cond := range crd.Status.Conditions {
		switch {
		case cond.Type == apiextensionsv1.NamesAccepted && cond.Status == apiextensionsv1.ConditionFalse:
			return nil, fmt.Errorf("the definition %q: its names are taken: %s", crd.Name, cond.Message)
		case cond.Type == apiextensionsv1.Established && cond.Status == apiextensionsv1.ConditionTrue:
			done = crd
		}
	}
	return done, nil
}

// serve waits until the kinds of an established definition answer, which they
// do a moment later, and learns them. Whoever asked too early, an informer for
// example, would wait much longer before it asks again.
func (c *cluster) serve(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition) error {
	for _, v := range crd.Spec.Versions {
		at := schema.GroupVersionResource{Group: crd.Spec.Group, Version: v.Name, Resource: crd.Spec.Names.Plural}
		for v.Served {
			_, err := c.objects.Resource(at).List(ctx, metav1.ListOptions{Limit: 1})
			if err == nil {
				break
			}
			if !transient(err) {
				return fmt.Errorf("wait for the definition %q: %w", crd.Name, err)
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for the definition %q: %w", crd.Name, ctx.Err())
			case <-time.After(rewatch):
			}
		}
	}
	c.learn(crd)
	return nil
}

// platforms is where the Platform object lives.
var platforms = v1alpha1.GroupVersion.WithResource("platforms")

// crdKind is the kind of definitions.
var crdKind = apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition")

// createPlatform makes the Platform object that nobody made, or that somebody
// deleted.
func (c *cluster) createPlatform(ctx context.Context, spec v1alpha1.PlatformSpec) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&v1alpha1.Platform{Spec: spec})
	if err != nil {
		return fmt.Errorf("encode the Platform: %w", err)
	}
	u := &unstructured.Unstructured{Object: content}
	delete(u.Object, "status")
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("Platform"))
	u.SetName(v1alpha1.PlatformName)
	_, err = c.dynamic.Resource(platforms).Create(ctx, u, metav1.CreateOptions{FieldManager: battery.Owner})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create the Platform: %w", err)
	}
	return nil
}

// changePlatform changes the spec of the Platform object, which it makes when
// there is none.
func (c *cluster) changePlatform(ctx context.Context, change func(*v1alpha1.PlatformSpec)) error {
	for {
		u, err := c.dynamic.Resource(platforms).Get(ctx, v1alpha1.PlatformName, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			spec := v1alpha1.PlatformSpec{}
			change(&spec)
			return c.createPlatform(ctx, spec)
		}
		if err != nil {
			return fmt.Errorf("read the Platform: %w", err)
		}
		p := &v1alpha1.Platform{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, p); err != nil {
			return fmt.Errorf("decode the Platform: %w", err)
		}
		change(&p.Spec)
		spec, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&p.Spec)
		if err != nil {
			return fmt.Errorf("encode the Platform: %w", err)
		}
		u.Object["spec"] = spec
		_, err = c.dynamic.Resource(platforms).Update(ctx, u, metav1.UpdateOptions{FieldManager: battery.Owner})
		if apierrors.IsConflict(err) {
			continue // its status was written meanwhile
		}
		if err != nil {
			return fmt.Errorf("change the Platform: %w", err)
		}
		return nil
	}
}

// transient tells whether an error of the API server may pass by itself: it is
// busy, not up, not ready for a new kind, or about to finish a deletion.
func transient(err error) bool {
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return true
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true // the network's
	}
	return apierrors.IsTooManyRequests(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) ||
		apierrors.IsInternalError(err) || apierrors.IsServiceUnavailable(err) ||
		apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}
