package entry

import (
	"context"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/knftables"
)

func ptr[T any](v T) *T { return &v }

func TestWaysOf(t *testing.T) {
	endpoint := func(address, node string, ready, serving bool) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{address}, NodeName: &node, Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving}}
	}
	service := &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "https", Port: 443, Protocol: corev1.ProtocolTCP}}}}
	tests := map[string]struct {
		reason    string
		endpoints []discoveryv1.Endpoint
		want      string
	}{
		"ready here":     {"", []discoveryv1.Endpoint{endpoint("10.0.0.2", "other", true, true), endpoint("10.0.0.3", "me", true, true)}, "10.0.0.3"},
		"old is leaving": {"the new pod takes over while the old one still serves", []discoveryv1.Endpoint{endpoint("10.0.0.2", "me", false, true), endpoint("10.0.0.3", "me", true, true)}, "10.0.0.3"},
		"only leaving":   {"better than nobody", []discoveryv1.Endpoint{endpoint("10.0.0.2", "me", false, true)}, "10.0.0.2"},
		"only starting":  {"", []discoveryv1.Endpoint{endpoint("10.0.0.2", "me", false, false)}, ""},
		"only elsewhere": {"127.0.0.1 stays on the machine", []discoveryv1.Endpoint{endpoint("10.0.0.2", "other", true, true)}, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := waysOf(service, []*discoveryv1.EndpointSlice{{
				AddressType: discoveryv1.AddressTypeIPv4, Endpoints: tc.endpoints,
				Ports: []discoveryv1.EndpointPort{{Name: ptr("http"), Port: ptr(int32(8080))}, {Name: ptr("https"), Port: ptr(int32(8443))}},
			}}, "me")
			var want []way
			if tc.want != "" {
				pod := netip.MustParseAddr(tc.want)
				want = []way{{"tcp", 80, pod, 8080}, {"tcp", 443, pod, 8443}}
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(way{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func TestRules(t *testing.T) {
	nft := knftables.NewFake(knftables.IPv4Family, TableName)
	pod := netip.MustParseAddr("10.42.0.9")
	for _, ways := range [][]way{{{"tcp", 80, pod, 8080}, {"tcp", 443, pod, 8443}}, {{"tcp", 80, pod, 8080}}} {
		tx := nft.NewTransaction()
		rules(tx, ways)
		if err := nft.Run(context.Background(), tx); err != nil {
			t.Fatal(err)
		}
		elements, err := nft.ListElements(context.Background(), "map", "ports")
		if err != nil || len(elements) != len(ways) {
			t.Errorf("got %d elements, %v; want %d", len(elements), err, len(ways))
		}
	}
}
