package translate

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
)

// readBackend resolves a reference to a backend. What is wrong with it is
// noted in the route and in the Backend's Problem.
func (t *translation) readBackend(r *route, ref gatewayv1.BackendRef) model.Backend {
	b := model.Backend{Weight: uint32(max(deref(ref.Weight, 1), 0))}
	bad := func(v verdict) model.Backend {
		r.unresolved(v)
		b.Problem = v.message
		return b
	}
	namespace := r.object.GetNamespace()
	name := types.NamespacedName{Namespace: string(deref(ref.Namespace, gatewayv1.Namespace(namespace))), Name: string(ref.Name)}
	b.ID = model.BackendID{Namespace: name.Namespace, Service: name.Name, Port: int32(deref(ref.Port, 0))}
	if group, kind := deref(ref.Group, coreGroup), deref(ref.Kind, "Service"); group != coreGroup || kind != "Service" {
		return bad(no(gatewayv1.RouteReasonInvalidKind, "backends of kind %s/%s are not supported: use a Service", group, kind))
	}
	if !t.grants.allow(r.kind, namespace, "Service", name.Namespace, name.Name) {
		return bad(no(gatewayv1.RouteReasonRefNotPermitted, "no ReferenceGrant in namespace %s allows a %s of namespace %s to use Service %s", name.Namespace, r.kind, namespace, name.Name))
	}
	service := t.objects.Services[name]
	if service == nil {
		return bad(no(gatewayv1.RouteReasonBackendNotFound, "Service %s does not exist", name))
	}
	r.services = append(r.services, name)
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		// It would let a route reach whatever its author can name.
		return bad(no(gatewayv1.RouteReasonBackendNotFound, "Service %s is of type ExternalName, which is not supported: use EndpointSlices", name))
	}
	i := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == b.ID.Port })
	if i < 0 {
		return bad(no(gatewayv1.RouteReasonBackendNotFound, "Service %s has no port %d", name, b.ID.Port))
	}
	port := &service.Spec.Ports[i]
	if port.Protocol != "" && port.Protocol != corev1.ProtocolTCP {
		return bad(no(gatewayv1.RouteReasonUnsupportedProtocol, "port %d of Service %s is for %s", b.ID.Port, name, port.Protocol))
	}
	secure := t.policyFor(name, port.Name)
	if v := setProtocol(&b, r.kind, deref(port.AppProtocol, ""), secure != nil); !v.ok() {
		return bad(verdict{v.reason, "port " + name.String() + ": " + v.message})
	}
	spec := model.BackendSpec{}
	if secure != nil {
		if secure.tls == nil {
			// Plain text instead would betray what is sent.
			b.Problem = "BackendTLSPolicy " + secure.object.Name + " of Service " + name.String() + " is not valid: " + secure.accepted.message
			return b
		}
		spec.TLS, b.ID.TLS = secure.tls, secure.digest
	}
	t.backends[b.ID] = spec
	return b
}

// setProtocol chooses how to speak to a backend by its Service's appProtocol
// (GEP-1911). A gRPC backend speaks HTTP/2 in any case.
func setProtocol(b *model.Backend, kind gatewayv1.Kind, appProtocol string, secure bool) verdict {
	switch strings.ToLower(appProtocol) {
	case "", "http", "tcp", "kubernetes.io/ws":
	case "kubernetes.io/h2c", "h2c", "http2", "grpc":
		b.ID.Protocol = model.HTTP2
	case "https", "kubernetes.io/wss", "tls":
		if !secure {
			return no(gatewayv1.RouteReasonUnsupportedProtocol, "appProtocol %q needs a BackendTLSPolicy", appProtocol)
		}
	default:
		return no(gatewayv1.RouteReasonUnsupportedProtocol, "appProtocol %q is not supported: use http, kubernetes.io/h2c or kubernetes.io/ws", appProtocol)
	}
	if kind == "GRPCRoute" {
		b.ID.Protocol = model.HTTP2
	}
	return verdict{}
}
