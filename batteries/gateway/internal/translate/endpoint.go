package translate

import (
	"net"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Addresses returns the addresses ("ip:port", sorted) of a Service's port. As
// kube-proxy does, it takes endpoints that are terminating but still serving
// when none is ready. IPv6 is used only where there is no IPv4.
func Addresses(s *corev1.Service, port int32, list []discoveryv1.EndpointSlice) []string {
	i := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == port })
	if i < 0 {
		return nil
	}
	name := s.Spec.Ports[i].Name
	for _, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
		var ready, serving []string
		for _, s := range list {
			if s.AddressType != family {
				continue
			}
			j := slices.IndexFunc(s.Ports, func(p discoveryv1.EndpointPort) bool { return deref(p.Name, "") == name })
			if j < 0 || s.Ports[j].Port == nil {
				continue
			}
			number := strconv.Itoa(int(*s.Ports[j].Port))
			for _, e := range s.Endpoints {
				if len(e.Addresses) == 0 {
					continue
				}
				address := net.JoinHostPort(e.Addresses[0], number)
				switch {
				case deref(e.Conditions.Ready, true):
					ready = append(ready, address)
				case deref(e.Conditions.Serving, false):
					serving = append(serving, address)
				}
			}
		}
		if len(ready) == 0 {
			ready = serving
		}
		if len(ready) > 0 {
			slices.Sort(ready)
			return slices.Compact(ready)
		}
	}
	return nil
}
