package translate

import (
	"crypto/sha256"
	"encoding/hex"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// ServiceWish is the Service that a gateway needs: it leads clients to the
// ports that the data plane listens on for the gateway.
type ServiceWish struct {
	Name    string
	Gateway types.NamespacedName
	// Ports leads from the listeners' ports to those of the data plane.
	Ports map[int32]uint16
	// Labels and Annotations are those the Gateway wants on what is made for
	// it.
	Labels, Annotations map[string]string
}

// GatewayAnnotation on a Service holds the namespace/name of the gateway it
// was made for.
const GatewayAnnotation = "emerald.dev/gateway"

// planServices reads the Services of the gateways and finds out which they
// should have. The ports listened on are remembered in the Services alone: a
// port once given stays, so that all replicas agree.
func (t *translation) planServices() {
	taken := map[uint16]bool{}
	own := map[types.NamespacedName]*corev1.Service{}
	for name, s := range t.objects.Services {
		if name.Namespace != t.Namespace {
			continue
		}
		gateway, ok := s.Annotations[GatewayAnnotation]
		if name.Name == t.DefaultService {
			gateway, ok = t.Default.String(), true
		}
		if !ok {
			continue
		}
		for _, p := range s.Spec.Ports {
			taken[uint16(p.TargetPort.IntVal)] = true
		}
		namespace, gatewayName, _ := strings.Cut(gateway, "/")
		own[types.NamespacedName{Namespace: namespace, Name: gatewayName}] = s
	}
	for _, g := range slices.SortedFunc(maps.Values(t.gateways), func(a, b *gateway) int { return byAge(a.object, b.object) }) {
		service := own[g.name]
		g.targets = map[int32]uint16{}
		if service != nil {
			for _, p := range service.Spec.Ports {
				g.targets[p.Port] = uint16(p.TargetPort.IntVal)
			}
			g.addresses = t.addressesOf(g, service)
		}
		wish := ServiceWish{Name: t.serviceName(g.name), Gateway: g.name, Ports: map[int32]uint16{}}
		for _, l := range g.all() {
			if !l.accepted.ok() || !l.unconflicted.ok() || !g.refused.ok() {
				continue
			}
			port := int32(l.port)
			target, ok := g.targets[port]
			if !ok {
				if target, ok = wish.Ports[port]; !ok {
					target = t.freeTarget(g.name, port, taken)
					if target == 0 {
						continue // all are taken; the listener is not programmed
					}
					taken[target] = true
				}
			}
			wish.Ports[port] = target
		}
		if g.name == t.Default {
			// Its own ports are there whatever its listeners.
			for port, target := range g.targets {
				wish.Ports[port] = target
			}
		}
		if i := g.object.Spec.Infrastructure; i != nil {
			wish.Labels, wish.Annotations = map[string]string{}, map[string]string{}
			for k, v := range i.Labels {
				wish.Labels[string(k)] = string(v)
			}
			for k, v := range i.Annotations {
				wish.Annotations[string(k)] = string(v)
			}
		}
		if len(wish.Ports) > 0 {
			t.result.Services = append(t.result.Services, wish)
		}
	}
}

// serviceName returns the name of a gateway's Service: readable, unique, at
// most 63 characters.
func (t *translation) serviceName(g types.NamespacedName) string {
	if g == t.Default {
		return t.DefaultService
	}
	sum := sha256.Sum256([]byte(g.String()))
	readable := "gw-" + strings.ReplaceAll(g.Namespace+"-"+g.Name, ".", "-")
	return strings.TrimRight(readable[:min(len(readable), 52)], "-") + "-" + hex.EncodeToString(sum[:4])
}

// freeTarget finds a port to listen on, the same one each time unless it is
// taken. Zero means that there is none.
func (t *translation) freeTarget(g types.NamespacedName, port int32, taken map[uint16]bool) uint16 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(g.String())) // hashes do not fail
	_, _ = h.Write([]byte{byte(port >> 8), byte(port)})
	size := uint32(t.LastTarget) - uint32(t.FirstTarget) + 1
	for i := range size {
		target := t.FirstTarget + uint16((h.Sum32()%size+i)%size)
		if !taken[target] {
			return target
		}
	}
	return 0
}

// addressesOf returns where clients find a gateway: its Service's addresses
// outside of the cluster, else the machines' for the default gateway, else the
// Service's inside.
func (t *translation) addressesOf(g *gateway, s *corev1.Service) []gatewayv1.GatewayStatusAddress {
	var values []string
	for _, in := range s.Status.LoadBalancer.Ingress {
		if in.IP != "" {
			values = append(values, in.IP)
		} else if in.Hostname != "" {
			values = append(values, in.Hostname)
		}
	}
	if len(values) == 0 && g.name == t.Default {
		values = t.objects.MachineAddresses
	}
	if len(values) == 0 && s.Spec.ClusterIP != "" && s.Spec.ClusterIP != corev1.ClusterIPNone {
		values = []string{s.Spec.ClusterIP}
	}
	var out []gatewayv1.GatewayStatusAddress
	for _, v := range values[:min(len(values), 16)] {
		kind := gatewayv1.HostnameAddressType
		if _, err := netip.ParseAddr(v); err == nil {
			kind = gatewayv1.IPAddressType
		}
		out = append(out, gatewayv1.GatewayStatusAddress{Type: &kind, Value: v})
	}
	return out
}
