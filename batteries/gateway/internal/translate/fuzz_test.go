package translate

import (
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/routing"
)

// FuzzTranslate gives the controller what any tenant may write, and more than
// the API server lets through: whatever it says, there is a configuration that
// the data plane takes, and every object gets its status.
func FuzzTranslate(f *testing.F) {
	f.Add(`{gatewayClassName: ours, listeners: [{name: a, port: 80, protocol: HTTP, hostname: "*.example.com"}]}`,
		`{parentRefs: [{name: g}], hostnames: [a.example.com], rules: [{matches: [{path: {type: RegularExpression, value: "/a+"}, headers: [{name: X, value: y}], queryParams: [{name: q, type: RegularExpression, value: "["}]}],
			filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}], backendRefs: [{name: s, port: 80}], timeouts: {request: 1s}}]}`,
		`{parentRefs: [{name: g}], rules: [{matches: [{method: {service: a.b, method: c}}], backendRefs: [{name: s, port: 80, weight: 0}]}]}`)
	f.Add(`{gatewayClassName: ours, listeners: [{name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: k}]}}, {name: a, port: 443, protocol: HTTPS}], infrastructure: {}, addresses: [{}]}`,
		`{parentRefs: [{name: g, sectionName: a, port: 1}], rules: [{filters: [{type: CORS, cors: {allowOrigins: ["https://*.a"]}}, {type: RequestMirror, requestMirror: {backendRef: {name: s, port: 80}, fraction: {numerator: 1, denominator: 0}}}]}]}`,
		`{rules: [{matches: [{method: {type: RegularExpression, service: "(", method: ""}}], filters: [{type: ExtensionRef}]}]}`)
	f.Add(`{gatewayClassName: ours, listeners: [{port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector}, kinds: [{kind: X}]}}]}`,
		`{parentRefs: [{name: g}], rules: [{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 303}}, {type: ResponseHeaderModifier}, {type: RequestMirror}, {type: CORS}, {type: URLRewrite}]}]}`, `{rules: [{}]}`)
	f.Fuzz(func(t *testing.T, gateway, http, grpc string) {
		meta := metav1.ObjectMeta{Namespace: "ns", Name: "g", Generation: 1}
		g, h, r := &gatewayv1.Gateway{ObjectMeta: meta}, &gatewayv1.HTTPRoute{ObjectMeta: meta}, &gatewayv1.GRPCRoute{ObjectMeta: meta}
		for text, spec := range map[string]any{gateway: &g.Spec, http: &h.Spec, grpc: &r.Spec} {
			raw, err := yaml.YAMLToJSON([]byte(text))
			if err != nil || json.Unmarshal(raw, spec) != nil {
				return
			}
		}
		o := &Objects{
			Classes:  []*gatewayv1.GatewayClass{{ObjectMeta: metav1.ObjectMeta{Name: "ours"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: settings.Controller}}},
			Gateways: []*gatewayv1.Gateway{g}, HTTPRoutes: []*gatewayv1.HTTPRoute{h}, GRPCRoutes: []*gatewayv1.GRPCRoute{r},
			Services: map[types.NamespacedName]*corev1.Service{{Namespace: "ns", Name: "s"}: {
				ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
			}},
			Namespaces: map[string]labels.Set{"ns": {}}, Material: map[Reference]Material{}, MachineAddresses: []string{"192.0.2.1"},
		}
		result := Translate(settings, o)
		for _, p := range result.Config.Ports {
			var listeners []routing.Listener[int]
			for _, l := range p.Listeners {
				compiled := routing.Listener[int]{Hostname: l.Hostname}
				for _, rule := range l.Rules {
					compiled.Rules = append(compiled.Rules, routing.Rule[int]{Hostname: rule.Hostname, Match: rule.Match, Age: rule.Age})
				}
				listeners = append(listeners, compiled)
			}
			if _, err := routing.Compile(listeners); err != nil {
				t.Errorf("the data plane refuses port %d, and with it every tenant's changes: %v", p.Number, err)
			}
		}
		if g.Spec.GatewayClassName == "ours" && len(result.Status.Gateways) != 1 {
			t.Errorf("the Gateway got %d statuses", len(result.Status.Gateways))
		}
	})
}
