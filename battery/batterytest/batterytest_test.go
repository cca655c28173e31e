package batterytest

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

func named(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }

func wall() kube.Object {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: named("demo"),
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: battery.Selector("demo")},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{{}}}},
		},
	}
}

func level(l string) kube.Object {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "emerald-demo", Labels: map[string]string{"pod-security.kubernetes.io/enforce": l},
	}}
}

func workload(edit func(*corev1.PodSpec, *corev1.Container)) kube.Object {
	p := corev1.PodSpec{Containers: []corev1.Container{{Name: "demo", SecurityContext: &corev1.SecurityContext{}}}}
	edit(&p, &p.Containers[0])
	return &appsv1.Deployment{ObjectMeta: named("demo"), Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: p}}}
}

func ptr[T any](v T) *T { return &v }

func TestRules(t *testing.T) {
	role := func(r rbacv1.PolicyRule) kube.Object {
		return &rbacv1.Role{ObjectMeta: named("r"), Rules: []rbacv1.PolicyRule{r}}
	}
	for name, tc := range map[string]struct {
		objs []kube.Object
		want []Rule
	}{
		"plain":     {objs: []kube.Object{wall()}},
		"no policy": {want: []Rule{Policy}},
		"a policy for others": {
			objs: []kube.Object{&networkingv1.NetworkPolicy{ObjectMeta: named("x"), Spec: networkingv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "other"}},
			}}},
			want: []Rule{Policy},
		},
		"a policy that lets all in": {
			objs: []kube.Object{&networkingv1.NetworkPolicy{ObjectMeta: named("x"), Spec: networkingv1.NetworkPolicySpec{
				Ingress: []networkingv1.NetworkPolicyIngressRule{{}},
			}}},
			want: []Rule{Policy},
		},
		"a policy for egress": {
			objs: []kube.Object{&networkingv1.NetworkPolicy{ObjectMeta: named("x"), Spec: networkingv1.NetworkPolicySpec{
				PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
			}}},
			want: []Rule{Policy},
		},
		"all verbs": {
			objs: []kube.Object{wall(), role(rbacv1.PolicyRule{Verbs: []string{"*"}, APIGroups: []string{""}, Resources: []string{"pods"}})},
			want: []Rule{Wildcard},
		},
		"all subresources, untyped": {
			objs: []kube.Object{wall(), &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": map[string]any{"name": "x"},
				"rules": []any{map[string]any{"verbs": []any{"get"}, "resources": []any{"*/status"}, "apiGroups": []any{""}}},
			}}},
			want: []Rule{Wildcard},
		},
		"privileged": {
			objs: []kube.Object{wall(), level("privileged"), workload(func(_ *corev1.PodSpec, c *corev1.Container) {
				c.SecurityContext.Privileged = ptr(true)
				c.SecurityContext.AllowPrivilegeEscalation = ptr(true)
			})},
			want: []Rule{Privileged},
		},
		"a capability": {
			objs: []kube.Object{wall(), level("privileged"), workload(func(_ *corev1.PodSpec, c *corev1.Container) {
				c.SecurityContext.Capabilities = &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}}
			})},
			want: []Rule{Privileged},
		},
		"a harmless capability": {
			objs: []kube.Object{wall(), workload(func(_ *corev1.PodSpec, c *corev1.Container) {
				c.SecurityContext.Capabilities = &corev1.Capabilities{Add: []corev1.Capability{"NET_BIND_SERVICE"}}
			})},
		},
		"root": {
			objs: []kube.Object{wall(), level("baseline"), workload(func(_ *corev1.PodSpec, c *corev1.Container) {
				c.SecurityContext.RunAsUser = ptr(int64(0))
				c.SecurityContext.RunAsNonRoot = ptr(false)
			})},
			want: []Rule{Root},
		},
		"writable": {
			objs: []kube.Object{wall(), workload(func(_ *corev1.PodSpec, c *corev1.Container) {
				c.SecurityContext.ReadOnlyRootFilesystem = ptr(false)
			})},
			want: []Rule{Writable},
		},
		"own directory": {
			objs: []kube.Object{wall(), level("privileged"), workload(func(p *corev1.PodSpec, _ *corev1.Container) {
				p.Volumes = []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{
					HostPath: &corev1.HostPathVolumeSource{Path: "/var/lib/emerald/batteries/demo"},
				}}}
			})},
		},
		"the neighbour's directory and a port": {
			objs: []kube.Object{wall(), level("privileged"), workload(func(p *corev1.PodSpec, c *corev1.Container) {
				p.Volumes = []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{
					HostPath: &corev1.HostPathVolumeSource{Path: "/var/lib/emerald/batteries/demo2"},
				}}}
				c.Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}}
			})},
			want: []Rule{Host},
		},
		"level too strict": {
			objs: []kube.Object{wall(), workload(func(p *corev1.PodSpec, _ *corev1.Container) { p.HostNetwork = true })},
			want: []Rule{Host, Level},
		},
		"level too loose": {
			objs: []kube.Object{wall(), level("baseline")},
			want: []Rule{Level},
		},
		"image and requests": {
			objs: []kube.Object{wall(), workload(func(_ *corev1.PodSpec, c *corev1.Container) {
				c.Image = "nginx"
				c.Resources.Requests = corev1.ResourceList{}
			})},
			want: []Rule{Image, Requests},
		},
		"secret": {
			objs: []kube.Object{wall(), &corev1.Secret{ObjectMeta: named("x"), StringData: map[string]string{"password": "admin"}}},
			want: []Rule{Secret},
		},
		"twice": {
			objs: []kube.Object{wall(), wall()},
			want: []Rule{Unique},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := battery.Battery{
				Name: "demo", Where: battery.Own,
				Run:       func(context.Context, battery.Site) error { return nil },
				Manifests: func(battery.Site) ([]kube.Object, error) { return tc.objs, nil },
			}
			violations, err := check(&b, rendered(t, &b, Site(&b)))
			if err != nil {
				t.Fatal(err)
			}
			var got []Rule
			for _, v := range violations {
				if !slices.Contains(got, v.rule) {
					got = append(got, v.rule)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("rules (-want +got):\n%s\n%v", diff, violations)
			}
		})
	}
}

func TestReadme(t *testing.T) {
	b := battery.Battery{Name: "demo", Config: struct {
		Servers int `json:"servers"`
		Zone    string
	}{}}
	good := "# demo: a demonstration\n\n## Try it\n\n## Settings\n\n`servers` `Zone`\n\n## The way out\n"
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"good": {text: good},
		"empty": {want: []string{
			`must begin with the title "# demo"`,
			"has no section with examples, called Examples or Try it",
			"has no section Way out: name what takes over when this is too small",
			"has no section Settings",
			"does not name the setting `Zone`",
			"does not name the setting `servers`",
		}},
		"a setting is missing": {
			text: strings.Replace(good, "`servers`", "servers", 1),
			want: []string{"does not name the setting `servers`"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, readmeProblems(&b, tc.text)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}
