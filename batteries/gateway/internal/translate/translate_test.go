package translate

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/routing"
	"github.com/emerald-platform/emerald/battery/batterytest"
)

var settings = Settings{
	Controller: "emerald.dev/gateway", Namespace: "emerald-gateway",
	Default:        types.NamespacedName{Namespace: "emerald-gateway", Name: "emerald"},
	DefaultService: "gateway", FirstTarget: 10000, LastTarget: 29999,
}

// Each file of testdata holds objects of a cluster; beside it is what they are
// translated to. A Secret or ConfigMap in it is good material unless its
// annotation "problem" says what is wrong with it.
func TestTranslate(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			objects := load(t, file)
			got := describeResult(Translate(settings, objects))
			batterytest.Golden(t, strings.TrimSuffix(file, ".yaml")+".golden", []byte(got))
			for range 3 {
				shuffle(objects)
				if again := describeResult(Translate(settings, objects)); again != got {
					t.Fatalf("another order of the objects gives another result:\n%s", again)
				}
			}
		})
	}
}

func load(t *testing.T, file string) *Objects {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, gatewayv1.Install} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	o := &Objects{Services: map[types.NamespacedName]*corev1.Service{}, Namespaces: map[string]labels.Set{}, Material: map[Reference]Material{}, MachineAddresses: []string{"192.0.2.1"}}
	for i, document := range bytes.Split(raw, []byte("\n---\n")) {
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Fatalf("document %d: %v", i, err)
		}
		m := object.(metav1.Object)
		if m.GetNamespace() == "" {
			m.SetNamespace("default")
		}
		if m.GetGeneration() == 0 {
			m.SetGeneration(1)
		}
		if m.GetCreationTimestamp().Time.IsZero() {
			m.SetCreationTimestamp(metav1.Unix(int64(1000+i), 0))
		}
		problem := m.GetAnnotations()["problem"]
		switch v := object.(type) {
		case *gatewayv1.GatewayClass:
			o.Classes = append(o.Classes, v)
		case *gatewayv1.Gateway:
			o.Gateways = append(o.Gateways, v)
		case *gatewayv1.ListenerSet:
			o.ListenerSets = append(o.ListenerSets, v)
		case *gatewayv1.HTTPRoute:
			o.HTTPRoutes = append(o.HTTPRoutes, v)
		case *gatewayv1.GRPCRoute:
			o.GRPCRoutes = append(o.GRPCRoutes, v)
		case *gatewayv1.ReferenceGrant:
			o.Grants = append(o.Grants, v)
		case *gatewayv1.BackendTLSPolicy:
			o.Policies = append(o.Policies, v)
		case *corev1.Service:
			o.Services[nameOf(v)] = v
		case *corev1.Namespace:
			o.Namespaces[v.Name] = v.Labels
		case *corev1.Secret:
			o.Material[Reference{"Secret", v.Namespace, v.Name, KeyPair}] = Material{Problem: problem, Certificate: &tls.Certificate{}}
		case *corev1.ConfigMap:
			o.Material[Reference{"ConfigMap", v.Namespace, v.Name, Authorities}] = Material{Problem: problem, Digest: v.Name}
		default:
			t.Fatalf("document %d: a %T", i, object)
		}
	}
	return o
}

func shuffle(o *Objects) {
	rand.Shuffle(len(o.Gateways), func(i, j int) { o.Gateways[i], o.Gateways[j] = o.Gateways[j], o.Gateways[i] })
	rand.Shuffle(len(o.ListenerSets), func(i, j int) { o.ListenerSets[i], o.ListenerSets[j] = o.ListenerSets[j], o.ListenerSets[i] })
	rand.Shuffle(len(o.HTTPRoutes), func(i, j int) { o.HTTPRoutes[i], o.HTTPRoutes[j] = o.HTTPRoutes[j], o.HTTPRoutes[i] })
	rand.Shuffle(len(o.GRPCRoutes), func(i, j int) { o.GRPCRoutes[i], o.GRPCRoutes[j] = o.GRPCRoutes[j], o.GRPCRoutes[i] })
	rand.Shuffle(len(o.Policies), func(i, j int) { o.Policies[i], o.Policies[j] = o.Policies[j], o.Policies[i] })
}

// describeResult writes a result in a form that is easy to review.
func describeResult(r *Result) string {
	var b strings.Builder
	for _, p := range r.Config.Ports {
		fmt.Fprintf(&b, "port %d → %d of %s, tls %v\n", p.Number, p.Target, p.Gateway, p.TLS)
		for _, l := range p.Listeners {
			fmt.Fprintf(&b, "  listener %q, %d certificates\n", l.Hostname, len(l.Certificates))
			for _, rule := range l.Rules {
				fmt.Fprintf(&b, "    %s\n", describeRule(rule))
			}
		}
	}
	for _, s := range r.Services {
		fmt.Fprintf(&b, "service %s for %s: ports %v\n", s.Name, s.Gateway, s.Ports)
	}
	for _, n := range r.Needs {
		fmt.Fprintf(&b, "needs %s %s/%s\n", n.Kind, n.Namespace, n.Name)
	}
	for _, s := range r.Status.Gateways {
		fmt.Fprintf(&b, "Gateway %s: %s\n", nameOf(s.Object), conditions(s.Status.Conditions))
		for _, a := range s.Status.Addresses {
			fmt.Fprintf(&b, "  address %s %s\n", *a.Type, a.Value)
		}
		if s.Status.AttachedListenerSets != nil {
			fmt.Fprintf(&b, "  %d listener sets\n", *s.Status.AttachedListenerSets)
		}
		for _, l := range s.Status.Listeners {
			fmt.Fprintf(&b, "  listener %s: %d kinds, %d routes, %s\n", l.Name, len(l.SupportedKinds), l.AttachedRoutes, conditions(l.Conditions))
		}
	}
	for _, s := range r.Status.ListenerSets {
		fmt.Fprintf(&b, "ListenerSet %s: %s\n", nameOf(s.Object), conditions(s.Status.Conditions))
		for _, l := range s.Status.Listeners {
			fmt.Fprintf(&b, "  listener %s: %d routes, %s\n", l.Name, l.AttachedRoutes, conditions(l.Conditions))
		}
	}
	parents := func(list []gatewayv1.RouteParentStatus) {
		for _, p := range list {
			fmt.Fprintf(&b, "  parent %s %s: %s\n", p.ParentRef.Name, deref(p.ParentRef.SectionName, ""), conditions(p.Conditions))
		}
	}
	for _, s := range r.Status.HTTPRoutes {
		fmt.Fprintf(&b, "HTTPRoute %s\n", nameOf(s.Object))
		parents(s.Status)
	}
	for _, s := range r.Status.GRPCRoutes {
		fmt.Fprintf(&b, "GRPCRoute %s\n", nameOf(s.Object))
		parents(s.Status)
	}
	for _, s := range r.Status.Policies {
		fmt.Fprintf(&b, "BackendTLSPolicy %s\n", nameOf(s.Object))
		for _, a := range s.Status {
			fmt.Fprintf(&b, "  ancestor %s: %s\n", a.AncestorRef.Name, conditions(a.Conditions))
		}
	}
	return b.String()
}

func describeRule(r routing.Rule[model.Action]) string {
	m := r.Match
	out := fmt.Sprintf("%q %s %s", r.Hostname, []string{"exact", "regex", "prefix"}[m.PathType], m.Path)
	if m.Method != "" {
		out += " " + m.Method
	}
	for _, h := range m.Headers {
		out += fmt.Sprintf(" %s=%s", h.Name, h.Value)
	}
	for _, q := range m.Query {
		out += fmt.Sprintf(" ?%s=%s", q.Name, q.Value)
	}
	out += " →"
	f := r.Action.Rule.Filters
	if f.Redirect != nil {
		out += fmt.Sprintf(" redirect %d", f.Redirect.Status)
	}
	for _, b := range r.Action.Rule.Backends {
		out += fmt.Sprintf(" %d×%s/%s:%d", b.Weight, b.ID.Namespace, b.ID.Service, b.ID.Port)
		if b.ID.Protocol == model.HTTP2 {
			out += " h2"
		}
		if b.ID.TLS != "" {
			out += " tls"
		}
		if b.Problem != "" {
			out += " (" + b.Problem + ")"
		}
	}
	return out + " from " + r.Action.Rule.Route
}

// conditions are written as Type+ when true, Type- and the reason when not.
func conditions(list []metav1.Condition) string {
	var out []string
	for _, c := range list {
		switch {
		case c.Status == metav1.ConditionTrue && c.Reason == c.Type:
			out = append(out, c.Type+"+")
		case c.Status == metav1.ConditionTrue:
			out = append(out, c.Type+"+"+c.Reason)
		case c.Type == string(gatewayv1.ListenerConditionConflicted) && c.Reason == string(gatewayv1.ListenerReasonNoConflicts):
		default:
			out = append(out, fmt.Sprintf("%s-%s (%s)", c.Type, c.Reason, c.Message))
		}
	}
	return strings.Join(out, " ")
}
