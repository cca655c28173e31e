// Package translate turns the objects of the Gateway API into what the data
// plane is to do, and into the statuses that tell their authors about it.
//
// It promises to be pure: the same objects give the same result, whatever the
// order they come in, without a cluster, clock or network. Every replica
// translates for itself; they agree because they see the same objects.
//
// It refuses to guess: what cannot be done as written is left out and its
// status says why, while everything else keeps working.
//
// Invariant: a route whose status says Accepted for a parent is in the Config,
// on every listener that counts it as attached and that is programmed.
package translate

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/upstream"
)

// Settings are the fixed points of an installation.
type Settings struct {
	// Controller is the controllerName of GatewayClasses that are ours.
	Controller gatewayv1.GatewayController
	// Namespace is where the data plane and its Services live.
	Namespace string
	// Default is the Gateway that listens on the machines' own ports.
	Default types.NamespacedName
	// DefaultService is the name of its Service, which exists already.
	DefaultService string
	// FirstTarget and LastTarget bound the ports that the data plane listens
	// on for gateways.
	FirstTarget, LastTarget uint16
}

// Objects is everything that is known of the cluster. Nothing in it is changed.
type Objects struct {
	Classes      []*gatewayv1.GatewayClass
	Gateways     []*gatewayv1.Gateway
	ListenerSets []*gatewayv1.ListenerSet
	HTTPRoutes   []*gatewayv1.HTTPRoute
	GRPCRoutes   []*gatewayv1.GRPCRoute
	Grants       []*gatewayv1.ReferenceGrant
	Policies     []*gatewayv1.BackendTLSPolicy
	Services     map[types.NamespacedName]*corev1.Service
	// Namespaces holds the labels of every namespace.
	Namespaces map[string]labels.Set
	// Material holds what earlier results asked for in Needs.
	Material map[Reference]Material
	// MachineAddresses are the addresses of the cluster's machines, sorted.
	MachineAddresses []string
}

// Reference names an object that holds certificates.
type Reference struct {
	Kind            string // Secret, ConfigMap or ClusterTrustBundle
	Namespace, Name string
	// Use says what is wanted of it.
	Use Use
}

// Use is what a [Reference] is for.
type Use uint8

// The uses of references.
const (
	// KeyPair wants the certificate and key of a server.
	KeyPair Use = iota
	// Authorities wants the certificates of authorities.
	Authorities
)

// Material is what was found for a [Reference].
type Material struct {
	// Problem, if not empty, says why it is of no use.
	Problem string
	// Certificate is set for KeyPair.
	Certificate *tls.Certificate
	// Roots and Digest are set for Authorities. Digest identifies the content.
	Roots  *x509.CertPool
	Digest string
}

// Result is a translation.
type Result struct {
	Config model.Config
	// Needs are the references that must be known for a complete translation.
	// While one is missing from Objects.Material, what depends on it is left
	// out and its status says that it is pending.
	Needs []Reference
	// Endpoints are the Service ports whose endpoints the data plane needs.
	Endpoints []upstream.Service
	// Services are the Services that gateways need, in Settings.Namespace.
	Services []ServiceWish
	Status   Statuses
}

// Statuses are what the statuses of objects should be. Conditions have no
// transition time: [MergeConditions] adds it.
type Statuses struct {
	Classes      []StatusOf[*gatewayv1.GatewayClass, gatewayv1.GatewayClassStatus]
	Gateways     []StatusOf[*gatewayv1.Gateway, gatewayv1.GatewayStatus]
	ListenerSets []StatusOf[*gatewayv1.ListenerSet, gatewayv1.ListenerSetStatus]
	HTTPRoutes   []StatusOf[*gatewayv1.HTTPRoute, []gatewayv1.RouteParentStatus]
	GRPCRoutes   []StatusOf[*gatewayv1.GRPCRoute, []gatewayv1.RouteParentStatus]
	Policies     []StatusOf[*gatewayv1.BackendTLSPolicy, []gatewayv1.PolicyAncestorStatus]
}

// StatusOf is the status an object should have. For routes and policies it is
// our share of it.
type StatusOf[O, S any] struct {
	Object O
	Status S
}

// translation is the work in progress.
type translation struct {
	Settings
	objects  *Objects
	grants   grants
	gateways map[types.NamespacedName]*gateway
	sets     map[types.NamespacedName]*listenerSet
	policies map[types.NamespacedName][]*policy // by Service
	backends map[model.BackendID]model.BackendSpec
	needs    map[Reference]bool
	uses     map[types.NamespacedName]map[types.NamespacedName]bool // Services to the gateways that use them
	result   *Result
}

// Translate makes a Result of what is known.
func Translate(settings Settings, objects *Objects) *Result {
	t := &translation{
		Settings: settings, objects: objects, grants: indexGrants(objects.Grants),
		gateways: map[types.NamespacedName]*gateway{}, sets: map[types.NamespacedName]*listenerSet{},
		policies: map[types.NamespacedName][]*policy{}, backends: map[model.BackendID]model.BackendSpec{},
		needs: map[Reference]bool{}, uses: map[types.NamespacedName]map[types.NamespacedName]bool{},
		result: &Result{},
	}
	t.readClasses()
	t.readListenerSets()
	t.readPolicies()
	t.attachRoutes()
	t.planServices()
	t.buildConfig()
	t.writeStatuses()
	for ref := range t.needs {
		t.result.Needs = append(t.result.Needs, ref)
	}
	slices.SortFunc(t.result.Needs, func(a, b Reference) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Use, b.Use))
	})
	return t.result
}

// find returns what is known for a reference, and asks for it. It returns
// false while it is unknown.
func (t *translation) find(ref Reference) (Material, bool) {
	t.needs[ref] = true
	m, ok := t.objects.Material[ref]
	return m, ok
}

// buildConfig puts the listeners with their routes into the result.
func (t *translation) buildConfig() {
	type portKey struct {
		gateway *gateway
		number  gatewayv1.PortNumber
	}
	ports := map[portKey]*model.Port{}
	for _, g := range t.gateways {
		for _, l := range g.all() {
			if !l.programmed() || !g.refused.ok() {
				continue
			}
			target, ok := g.targets[int32(l.port)]
			if !ok {
				continue // the Service has no target for it yet
			}
			key := portKey{g, l.port}
			p := ports[key]
			if p == nil {
				p = &model.Port{Target: target, Number: uint16(l.port), Gateway: g.name.String(), TLS: l.protocol == gatewayv1.HTTPSProtocolType}
				ports[key] = p
			}
			l.served = true
			p.Listeners = append(p.Listeners, model.Listener{Hostname: l.hostname, Rules: l.rules, Certificates: l.certificates})
		}
	}
	for _, p := range ports {
		t.result.Config.Ports = append(t.result.Config.Ports, *p)
	}
	slices.SortFunc(t.result.Config.Ports, func(a, b model.Port) int { return int(a.Target) - int(b.Target) })
	t.result.Config.Backends = t.backends
	seen := map[upstream.Service]bool{}
	for id := range t.backends {
		seen[upstream.Service{Namespace: id.Namespace, Name: id.Service, Port: id.Port}] = true
	}
	for s := range seen {
		t.result.Endpoints = append(t.result.Endpoints, s)
	}
	slices.SortFunc(t.result.Endpoints, func(a, b upstream.Service) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port))
	})
}

// nameOf returns the namespace and name of an object.
func nameOf(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// byAge orders objects: older first, then by namespace and name.
func byAge[O metav1.Object](a, b O) int {
	return cmp.Or(
		a.GetCreationTimestamp().Time.Compare(b.GetCreationTimestamp().Time),
		strings.Compare(a.GetNamespace(), b.GetNamespace()),
		strings.Compare(a.GetName(), b.GetName()),
	)
}

// deref returns what p points at, or a default where it is nil.
func deref[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
