package control

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/translate"
)

// serviceIndex indexes EndpointSlices by the Service they belong to.
const serviceIndex = "service"

// newCache returns the cache of everything watched. Objects in it are stripped
// of what is not needed, and are never copied: nobody may change them.
func newCache(kube *rest.Config, scheme *runtime.Scheme) (cache.Cache, error) {
	never := true
	c, err := cache.New(kube, cache.Options{
		Scheme: scheme, DefaultTransform: stripObject, DefaultUnsafeDisableDeepCopy: &never,
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Service{}:            {Transform: stripService},
			&discoveryv1.EndpointSlice{}: {Transform: stripSlice},
			&corev1.Node{}:               {Transform: stripNode},
			secretMetadata():             {Field: fields.OneTermEqualSelector("type", string(corev1.SecretTypeTLS)), Transform: stripMetadata},
			configMapMetadata(): {
				// Every namespace has one of these.
				Field: fields.OneTermNotEqualSelector("metadata.name", "kube-root-ca.crt"), Transform: stripMetadata,
			},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make a cache: %w", err)
	}
	return c, nil
}

func secretMetadata() *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "Secret"})
	return o
}

func configMapMetadata() *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"})
	return o
}

func stripObject(in any) (any, error) {
	if o, ok := in.(metav1.Object); ok {
		o.SetManagedFields(nil)
		if a := o.GetAnnotations(); a[corev1.LastAppliedConfigAnnotation] != "" {
			delete(a, corev1.LastAppliedConfigAnnotation)
		}
	}
	return in, nil
}

func stripMetadata(in any) (any, error) {
	if o, ok := in.(*metav1.PartialObjectMetadata); ok {
		o.ObjectMeta = metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, ResourceVersion: o.ResourceVersion, UID: o.UID}
	}
	return in, nil
}

func stripService(in any) (any, error) {
	if s, ok := in.(*corev1.Service); ok {
		annotations := map[string]string(nil)
		if v, ok := s.Annotations[translate.GatewayAnnotation]; ok {
			annotations = map[string]string{translate.GatewayAnnotation: v}
		}
		s.ObjectMeta = metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, ResourceVersion: s.ResourceVersion, UID: s.UID, Annotations: annotations}
		s.Spec = corev1.ServiceSpec{Type: s.Spec.Type, Ports: s.Spec.Ports, ClusterIP: s.Spec.ClusterIP}
		s.Status = corev1.ServiceStatus{LoadBalancer: s.Status.LoadBalancer}
	}
	return in, nil
}

func stripSlice(in any) (any, error) {
	if s, ok := in.(*discoveryv1.EndpointSlice); ok {
		s.ObjectMeta = metav1.ObjectMeta{
			Namespace: s.Namespace, Name: s.Name, ResourceVersion: s.ResourceVersion, UID: s.UID,
			Labels: map[string]string{discoveryv1.LabelServiceName: s.Labels[discoveryv1.LabelServiceName]},
		}
		for i := range s.Endpoints {
			s.Endpoints[i] = discoveryv1.Endpoint{Addresses: s.Endpoints[i].Addresses, Conditions: s.Endpoints[i].Conditions}
		}
	}
	return in, nil
}

func stripNode(in any) (any, error) {
	if n, ok := in.(*corev1.Node); ok {
		n.ObjectMeta = metav1.ObjectMeta{Name: n.Name, ResourceVersion: n.ResourceVersion, UID: n.UID}
		n.Spec = corev1.NodeSpec{}
		n.Status = corev1.NodeStatus{Addresses: n.Status.Addresses}
	}
	return in, nil
}

// watch registers for changes of everything that matters.
func (c *Controller) watch(ctx context.Context) error {
	err := c.cache.IndexField(ctx, &discoveryv1.EndpointSlice{}, serviceIndex, func(o client.Object) []string {
		return []string{o.GetLabels()[discoveryv1.LabelServiceName]}
	})
	if err != nil {
		return fmt.Errorf("index endpoints: %w", err)
	}
	translated := func(any) { poke(c.changed) }
	watches := []struct {
		object  client.Object
		changed func(o any)
		same    func(old, new client.Object) bool
	}{
		{&gatewayv1.GatewayClass{}, translated, sameSpec},
		{&gatewayv1.Gateway{}, translated, sameSpec},
		{&gatewayv1.ListenerSet{}, translated, sameSpec},
		{&gatewayv1.HTTPRoute{}, translated, sameSpec},
		{&gatewayv1.GRPCRoute{}, translated, sameSpec},
		{&gatewayv1.ReferenceGrant{}, translated, sameSpec},
		{&gatewayv1.BackendTLSPolicy{}, translated, sameSpec},
		{&corev1.Service{}, translated, nil},
		{&corev1.Namespace{}, translated, func(old, new client.Object) bool { return maps.Equal(old.GetLabels(), new.GetLabels()) }},
		{&corev1.Node{}, translated, func(old, new client.Object) bool {
			return equality.Semantic.DeepEqual(old.(*corev1.Node).Status.Addresses, new.(*corev1.Node).Status.Addresses)
		}},
		{&discoveryv1.EndpointSlice{}, c.endpointsChanged, nil},
		{secretMetadata(), c.materialChanged("Secret"), nil},
		{configMapMetadata(), c.materialChanged("ConfigMap"), nil},
	}
	for _, w := range watches {
		informer, err := c.cache.GetInformer(ctx, w.object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watch %T: %w", w.object, err)
		}
		_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc: w.changed,
			UpdateFunc: func(old, new any) {
				a, b := old.(client.Object), new.(client.Object)
				switch {
				case a.GetResourceVersion() == b.GetResourceVersion():
				case w.same != nil && w.same(a, b):
					// Somebody wrote a status: perhaps not the one it should be.
					poke(c.published)
				default:
					w.changed(new)
				}
			},
			DeleteFunc: func(o any) {
				if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
					o = gone.Obj
				}
				w.changed(o)
			},
		})
		if err != nil {
			return fmt.Errorf("watch %T: %w", w.object, err)
		}
	}
	return nil
}

// sameSpec tells whether only the status of an object changed.
func sameSpec(old, new client.Object) bool {
	return old.GetGeneration() == new.GetGeneration() && old.GetUID() == new.GetUID() &&
		maps.Equal(old.GetLabels(), new.GetLabels()) && maps.Equal(old.GetAnnotations(), new.GetAnnotations())
}

// endpointsChanged notes that the endpoints of a Service changed.
func (c *Controller) endpointsChanged(o any) {
	slice, ok := o.(*discoveryv1.EndpointSlice)
	if !ok {
		return
	}
	c.mu.Lock()
	c.stale[types.NamespacedName{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}] = true
	c.mu.Unlock()
	poke(c.moved)
}

// materialChanged returns what notes that an object with certificates changed.
func (c *Controller) materialChanged(kind string) func(any) {
	return func(o any) {
		if m, ok := o.(metav1.Object); ok && c.material.expire(kind, m.GetNamespace(), m.GetName()) {
			poke(c.changed)
		}
	}
}

// snapshot lists everything in the cache.
func (c *Controller) snapshot(ctx context.Context) (*translate.Objects, error) {
	o := &translate.Objects{Services: map[types.NamespacedName]*corev1.Service{}, Namespaces: map[string]labels.Set{}}
	var (
		classes    gatewayv1.GatewayClassList
		gateways   gatewayv1.GatewayList
		sets       gatewayv1.ListenerSetList
		httpRoutes gatewayv1.HTTPRouteList
		grpcRoutes gatewayv1.GRPCRouteList
		grants     gatewayv1.ReferenceGrantList
		policies   gatewayv1.BackendTLSPolicyList
		services   corev1.ServiceList
		namespaces corev1.NamespaceList
		nodes      corev1.NodeList
	)
	for _, list := range []client.ObjectList{&classes, &gateways, &sets, &httpRoutes, &grpcRoutes, &grants, &policies, &services, &namespaces, &nodes} {
		if err := c.cache.List(ctx, list); err != nil {
			return nil, fmt.Errorf("list %T: %w", list, err)
		}
	}
	o.Classes, o.Gateways, o.ListenerSets = pointers(classes.Items), pointers(gateways.Items), pointers(sets.Items)
	o.HTTPRoutes, o.GRPCRoutes = pointers(httpRoutes.Items), pointers(grpcRoutes.Items)
	o.Grants, o.Policies = pointers(grants.Items), pointers(policies.Items)
	for i := range services.Items {
		s := &services.Items[i]
		o.Services[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = s
	}
	for i := range namespaces.Items {
		o.Namespaces[namespaces.Items[i].Name] = namespaces.Items[i].Labels
	}
	for i := range nodes.Items {
		for _, a := range nodes.Items[i].Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				o.MachineAddresses = append(o.MachineAddresses, a.Address)
			}
		}
	}
	slices.Sort(o.MachineAddresses)
	return o, nil
}

func pointers[T any](items []T) []*T {
	out := make([]*T, len(items))
	for i := range items {
		out[i] = &items[i]
	}
	return out
}
