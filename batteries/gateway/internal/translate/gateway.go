package translate

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// gateway is a Gateway that is ours.
type gateway struct {
	object    *gatewayv1.Gateway
	name      types.NamespacedName
	listeners []*listener
	sets      []*listenerSet // the allowed ones, in order of precedence
	// refused says why the Gateway as a whole is not accepted.
	refused verdict
	// targets leads from the ports clients use to those listened on; addresses
	// are where clients find it. Both come from its Service.
	targets   map[int32]uint16
	addresses []gatewayv1.GatewayStatusAddress
}

// listenerSet is a ListenerSet whose Gateway is ours.
type listenerSet struct {
	object    *gatewayv1.ListenerSet
	gateway   *gateway
	listeners []*listener
	allowed   bool
}

// all returns the listeners in order of precedence: the Gateway's own, then
// those of its sets from the oldest on (GEP-1713).
func (g *gateway) all() []*listener {
	out := slices.Clone(g.listeners)
	for _, s := range g.sets {
		out = append(out, s.listeners...)
	}
	return out
}

// readClasses finds the gateways that are ours.
func (t *translation) readClasses() {
	ours := map[gatewayv1.ObjectName]bool{}
	for _, c := range t.objects.Classes {
		if c.Spec.ControllerName == t.Controller && c.Spec.ParametersRef == nil {
			ours[gatewayv1.ObjectName(c.Name)] = true
		}
	}
	for _, o := range t.objects.Gateways {
		if !ours[o.Spec.GatewayClassName] {
			continue
		}
		g := &gateway{object: o, name: nameOf(o), refused: refusal(&o.Spec)}
		for i := range o.Spec.Listeners {
			l := &o.Spec.Listeners[i]
			g.listeners = append(g.listeners, t.readListener(listenerSource{
				owner: "Gateway", namespace: o.Namespace, name: l.Name, hostname: l.Hostname, port: l.Port,
				protocol: l.Protocol, tls: l.TLS, allowed: l.AllowedRoutes, frontend: o.Spec.TLS,
			}))
		}
		t.gateways[g.name] = g
	}
}

// refusal says why a Gateway cannot be accepted whatever its listeners.
func refusal(spec *gatewayv1.GatewaySpec) verdict {
	if i := spec.Infrastructure; i != nil && i.ParametersRef != nil {
		return no(gatewayv1.GatewayReasonInvalidParameters, "infrastructure.parametersRef names a %s, but this controller knows no parameters: remove it", i.ParametersRef.Kind)
	}
	for _, a := range spec.Addresses {
		if a.Value != "" || deref(a.Type, gatewayv1.IPAddressType) != gatewayv1.IPAddressType {
			return no(gatewayv1.GatewayReasonUnsupportedAddress, "address %q cannot be assigned: leave spec.addresses empty and take the one in the status", a.Value)
		}
	}
	if spec.TLS != nil && spec.TLS.Backend != nil {
		return no(gatewayv1.GatewayReasonInvalidParameters, "tls.backend (client certificates for backends) is not supported: remove it")
	}
	return verdict{}
}

// readListenerSets attaches the ListenerSets to their gateways and settles
// conflicts between listeners.
func (t *translation) readListenerSets() {
	for _, o := range slices.SortedFunc(slices.Values(t.objects.ListenerSets), byAge) {
		ref := o.Spec.ParentRef
		if deref(ref.Group, gatewayv1.GroupName) != gatewayv1.GroupName || deref(ref.Kind, "Gateway") != "Gateway" {
			continue
		}
		name := types.NamespacedName{Namespace: string(deref(ref.Namespace, gatewayv1.Namespace(o.Namespace))), Name: string(ref.Name)}
		g := t.gateways[name]
		if g == nil {
			continue
		}
		s := &listenerSet{object: o, gateway: g, allowed: t.allowsSet(g.object, o.Namespace)}
		for i := range o.Spec.Listeners {
			l := &o.Spec.Listeners[i]
			s.listeners = append(s.listeners, t.readListener(listenerSource{
				owner: "ListenerSet", namespace: o.Namespace, name: l.Name, hostname: l.Hostname, port: l.Port,
				protocol: l.Protocol, tls: l.TLS, allowed: l.AllowedRoutes, frontend: g.object.Spec.TLS,
			}))
		}
		t.sets[nameOf(o)] = s
		if s.allowed {
			g.sets = append(g.sets, s)
		}
	}
	for _, g := range t.gateways {
		settleConflicts(g.all())
	}
}

// allowsSet tells whether a Gateway allows ListenerSets of a namespace. None
// are allowed by default.
func (t *translation) allowsSet(g *gatewayv1.Gateway, namespace string) bool {
	if g.Spec.AllowedListeners == nil || g.Spec.AllowedListeners.Namespaces == nil {
		return false
	}
	n := g.Spec.AllowedListeners.Namespaces
	return t.allowsNamespace(deref(n.From, gatewayv1.NamespacesFromNone), n.Selector, g.Namespace, namespace)
}

// allowsNamespace tells whether a choice of namespaces made in one of them
// includes another.
func (t *translation) allowsNamespace(from gatewayv1.FromNamespaces, selector *metav1.LabelSelector, own, other string) bool {
	switch from {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSame:
		return own == other
	case gatewayv1.NamespacesFromSelector:
		s, err := metav1.LabelSelectorAsSelector(selector)
		if err != nil {
			return false
		}
		l, known := t.objects.Namespaces[other]
		return known && s.Matches(l)
	}
	return false
}

// verdict says whether something is as it should be. The zero verdict does.
type verdict struct {
	reason, message string
}

// no returns a verdict with a reason of the Gateway API.
func no[R ~string](reason R, format string, args ...any) verdict {
	return verdict{string(reason), fmt.Sprintf(format, args...)}
}

func (v verdict) ok() bool { return v.reason == "" }
