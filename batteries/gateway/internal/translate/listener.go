package translate

import (
	"crypto/tls"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/routing"
)

// listenerSource is what Gateways and ListenerSets say of a listener.
type listenerSource struct {
	owner     gatewayv1.Kind
	namespace string
	name      gatewayv1.SectionName
	hostname  *gatewayv1.Hostname
	port      gatewayv1.PortNumber
	protocol  gatewayv1.ProtocolType
	tls       *gatewayv1.ListenerTLSConfig
	allowed   *gatewayv1.AllowedRoutes
	// frontend is the Gateway's TLS configuration.
	frontend *gatewayv1.GatewayTLSConfig
}

// listener is a listener as far as it could be understood.
type listener struct {
	name         gatewayv1.SectionName
	namespace    string // of its owner
	hostname     string
	port         gatewayv1.PortNumber
	protocol     gatewayv1.ProtocolType
	kinds        []gatewayv1.Kind
	from         gatewayv1.FromNamespaces
	selector     *metav1.LabelSelector
	certificates []*tls.Certificate

	accepted, resolved, unconflicted verdict

	attached int32
	routes   map[routeKey]bool
	claimed  map[gatewayv1.Kind]hostClaims
	rules    []routing.Rule[model.Action]
	served   bool // it is in the Config
}

// programmed tells whether the data plane can serve the listener.
func (l *listener) programmed() bool {
	return l.accepted.ok() && l.unconflicted.ok() && (l.protocol != gatewayv1.HTTPSProtocolType || len(l.certificates) > 0)
}

// routeKinds are the kinds of routes that listeners for HTTP can have.
var routeKinds = []gatewayv1.Kind{"HTTPRoute", "GRPCRoute"}

// readListener understands one listener by itself.
func (t *translation) readListener(s listenerSource) *listener {
	l := &listener{
		name: s.name, namespace: s.namespace, hostname: strings.ToLower(string(deref(s.hostname, ""))), port: s.port,
		protocol: s.protocol, from: gatewayv1.NamespacesFromSame, routes: map[routeKey]bool{}, claimed: map[gatewayv1.Kind]hostClaims{},
	}
	if s.allowed != nil && s.allowed.Namespaces != nil {
		l.from, l.selector = deref(s.allowed.Namespaces.From, l.from), s.allowed.Namespaces.Selector
	}
	switch s.protocol {
	case gatewayv1.HTTPProtocolType:
	case gatewayv1.HTTPSProtocolType:
		if s.tls != nil && deref(s.tls.Mode, gatewayv1.TLSModeTerminate) != gatewayv1.TLSModeTerminate {
			l.accepted = no(gatewayv1.ListenerReasonUnsupportedValue, "protocol HTTPS needs tls.mode Terminate")
		}
		if s.frontend != nil && s.frontend.Frontend != nil {
			// Serving without the check that was asked for would be worse.
			l.accepted = no(gatewayv1.ListenerReasonUnsupportedValue, "the Gateway's tls.frontend (certificates of clients) is not supported: remove it")
		}
	default:
		l.accepted = no(gatewayv1.ListenerReasonUnsupportedProtocol, "protocol %q is not supported: use HTTP or HTTPS", s.protocol)
		return l
	}
	l.readKinds(s.allowed)
	if s.protocol == gatewayv1.HTTPSProtocolType {
		t.readCertificates(l, s)
	}
	return l
}

// readKinds finds the kinds of routes that may attach.
func (l *listener) readKinds(allowed *gatewayv1.AllowedRoutes) {
	if allowed == nil || len(allowed.Kinds) == 0 {
		l.kinds = routeKinds
		return
	}
	for _, k := range allowed.Kinds {
		if deref(k.Group, gatewayv1.GroupName) == gatewayv1.GroupName && slices.Contains(routeKinds, k.Kind) {
			l.kinds = append(l.kinds, k.Kind)
			continue
		}
		l.resolved = no(gatewayv1.ListenerReasonInvalidRouteKinds, "routes of kind %s cannot attach to protocol %s: use %v", k.Kind, l.protocol, routeKinds)
	}
}

// readCertificates resolves the certificates of an HTTPS listener.
func (t *translation) readCertificates(l *listener, s listenerSource) {
	if s.tls == nil || len(s.tls.CertificateRefs) == 0 {
		l.resolved = no(gatewayv1.ListenerReasonInvalidCertificateRef, "protocol HTTPS needs tls.certificateRefs")
		return
	}
	for _, ref := range s.tls.CertificateRefs {
		group, kind := deref(ref.Group, coreGroup), deref(ref.Kind, "Secret")
		namespace := string(deref(ref.Namespace, gatewayv1.Namespace(s.namespace)))
		if group != coreGroup || kind != "Secret" {
			l.resolved = no(gatewayv1.ListenerReasonInvalidCertificateRef, "certificateRefs: %s/%s is not supported: use a Secret of type kubernetes.io/tls", group, kind)
			continue
		}
		if !t.grants.allow(s.owner, s.namespace, "Secret", namespace, string(ref.Name)) {
			l.resolved = no(gatewayv1.ListenerReasonRefNotPermitted, "no ReferenceGrant in namespace %s allows a %s of namespace %s to use Secret %s", namespace, s.owner, s.namespace, ref.Name)
			continue
		}
		m, known := t.find(Reference{Kind: "Secret", Namespace: namespace, Name: string(ref.Name), Use: KeyPair})
		switch {
		case !known:
			l.resolved = no(gatewayv1.ListenerReasonInvalidCertificateRef, "Secret %s/%s is being read", namespace, ref.Name)
		case m.Problem != "":
			l.resolved = no(gatewayv1.ListenerReasonInvalidCertificateRef, "Secret %s/%s %s", namespace, ref.Name, m.Problem)
		default:
			l.certificates = append(l.certificates, m.Certificate)
		}
	}
}

// settleConflicts marks listeners that want the port of an earlier one for
// something else.
func settleConflicts(listeners []*listener) {
	type address struct {
		port     gatewayv1.PortNumber
		hostname string
	}
	protocols := map[gatewayv1.PortNumber]gatewayv1.ProtocolType{}
	taken := map[address]bool{}
	for _, l := range listeners {
		if p, ok := protocols[l.port]; ok && p != l.protocol {
			l.unconflicted = no(gatewayv1.ListenerReasonProtocolConflict, "port %d is used for protocol %s by an earlier listener", l.port, p)
			continue
		}
		if !l.accepted.ok() {
			continue // it takes nothing from others
		}
		if taken[address{l.port, l.hostname}] {
			l.unconflicted = no(gatewayv1.ListenerReasonHostnameConflict, "an earlier listener has port %d and hostname %q", l.port, l.hostname)
			continue
		}
		protocols[l.port] = l.protocol
		taken[address{l.port, l.hostname}] = true
	}
}

// hostClaims are the hostnames that routes of one kind have on a listener.
type hostClaims map[string]bool

// overlap returns a hostname among the claims that intersects with one of
// hosts.
func (c hostClaims) overlap(hosts []string) (string, bool) {
	for _, h := range hosts {
		if c[h] {
			return h, true
		}
		for claimed := range c {
			if _, ok := routing.Intersect(claimed, h); ok {
				return claimed, true
			}
		}
	}
	return "", false
}

// conditions returns the conditions of the listener.
func (l *listener) conditions(generation int64) []metav1.Condition {
	accepted := l.unconflicted
	if accepted.ok() {
		accepted = l.accepted
	}
	programmed := accepted
	switch {
	case !programmed.ok() || l.served:
	case !l.programmed():
		programmed = no(gatewayv1.ListenerReasonInvalid, "no certificate can be used")
	default:
		programmed = no(gatewayv1.ListenerReasonPending, "the Gateway's Service is not there yet, or the Gateway is not accepted")
	}
	conflicted := metav1.Condition{Type: string(gatewayv1.ListenerConditionConflicted), Status: metav1.ConditionFalse, Reason: string(gatewayv1.ListenerReasonNoConflicts), ObservedGeneration: generation}
	if v := l.unconflicted; !v.ok() {
		conflicted.Status, conflicted.Reason, conflicted.Message = metav1.ConditionTrue, v.reason, v.message
	}
	return []metav1.Condition{
		condition(gatewayv1.ListenerConditionAccepted, gatewayv1.ListenerReasonAccepted, "", accepted, generation),
		condition(gatewayv1.ListenerConditionProgrammed, gatewayv1.ListenerReasonProgrammed, "", programmed, generation),
		condition(gatewayv1.ListenerConditionResolvedRefs, gatewayv1.ListenerReasonResolvedRefs, "", l.resolved, generation),
		conflicted,
	}
}

// supportedKinds returns the kinds for the status; never nil.
func (l *listener) supportedKinds() []gatewayv1.RouteGroupKind {
	out := []gatewayv1.RouteGroupKind{}
	for _, k := range l.kinds {
		group := gatewayv1.Group(gatewayv1.GroupName)
		out = append(out, gatewayv1.RouteGroupKind{Group: &group, Kind: k})
	}
	return out
}

// condition returns a condition that is true when the verdict is good.
func condition[T, R ~string](kind T, good R, message string, v verdict, generation int64) metav1.Condition {
	c := metav1.Condition{Type: string(kind), Status: metav1.ConditionTrue, Reason: string(good), Message: message, ObservedGeneration: generation}
	if !v.ok() {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v.reason, v.message
	}
	return c
}
