package kube_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/emerald-platform/emerald/kit/kube"
)

func named(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }

func TestSetKind(t *testing.T) {
	d := &appsv1.Deployment{}
	if err := kube.SetKind(d); err != nil {
		t.Fatal(err)
	}
	if got := d.GetObjectKind().GroupVersionKind().String(); got != "apps/v1, Kind=Deployment" {
		t.Errorf("kind %q", got)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := kube.SetKind(crd); err != nil {
		t.Errorf("definitions are unknown: %v", err)
	}
	if err := kube.SetKind(&unstructured.Unstructured{}); err == nil {
		t.Error("an object without a kind is accepted")
	}
}

func TestSortForApply(t *testing.T) {
	objs := []kube.Object{
		&appsv1.Deployment{ObjectMeta: named("b")}, &corev1.Service{ObjectMeta: named("s")},
		&appsv1.Deployment{ObjectMeta: named("a")}, &rbacv1.RoleBinding{ObjectMeta: named("rb")}, &rbacv1.Role{ObjectMeta: named("r")},
		&apiextensionsv1.CustomResourceDefinition{ObjectMeta: named("crd")}, &corev1.Namespace{ObjectMeta: named("ns")},
	}
	for _, o := range objs {
		if err := kube.SetKind(o); err != nil {
			t.Fatal(err)
		}
	}
	kube.SortForApply(objs)
	var got []string
	basic := 0
	for _, o := range objs {
		got = append(got, o.GetName())
		if kube.Basic(o) {
			basic++
		}
	}
	if diff := cmp.Diff([]string{"ns", "crd", "r", "rb", "s", "b", "a"}, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if basic != 5 {
		t.Errorf("%d objects are basic, want all but the two deployments", basic)
	}
}

func TestDesired(t *testing.T) {
	typed := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: named("x"),
		Spec:   corev1.ServiceSpec{ClusterIP: "10.0.0.1"},
		Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "1.2.3.4"}}}},
	}
	want := map[string]any{
		"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": "x"}, "spec": map[string]any{"clusterIP": "10.0.0.1"},
	}
	u, err := kube.Desired(typed)
	if err != nil {
		t.Fatal(err)
	}
	delete(u.Object["spec"].(map[string]any), "loadBalancer")
	if diff := cmp.Diff(want, u.Object); diff != "" {
		t.Errorf("typed (-want +got):\n%s", diff)
	}

	untyped := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.org/v1", "kind": "Thing", "metadata": map[string]any{"name": "y"}, "status": map[string]any{"ready": true},
	}}
	u, err = kube.Desired(untyped)
	if err != nil {
		t.Fatal(err)
	}
	if _, has := u.Object["status"]; has {
		t.Error("the status is applied")
	}
	if _, has := untyped.Object["status"]; !has {
		t.Error("the original lost its status")
	}
}

func TestYAML(t *testing.T) {
	got, err := kube.YAML([]kube.Object{
		&corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: named("a")},
		&corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: named("b"), Data: map[string]string{"k": "v"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\nspec: {}\n---\n" +
		"apiVersion: v1\ndata:\n  k: v\nkind: ConfigMap\nmetadata:\n  name: b\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("yaml (-want +got):\n%s", diff)
	}
}
