package battery_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/battery/batterytest"
	"github.com/emerald-platform/emerald/kit/kube"
)

func site() battery.Site {
	return battery.Site{
		Domain: "emerald.localhost", Image: "emerald@sha256:0", Replicas: 2, ClusterDomain: "cluster.local",
		DNSAddress: "10.43.0.10", RegistryAddress: "10.43.0.11", DataDir: "/var/lib/emerald", Config: knobs{Servers: 2},
	}
}

func manifests(objs ...kube.Object) func(*battery.Battery) {
	return func(b *battery.Battery) {
		b.Manifests = func(battery.Site) ([]kube.Object, error) { return objs, nil }
	}
}

func where(p battery.Place) func(*battery.Battery) {
	return func(b *battery.Battery) { b.Where = p }
}

func TestComplete(t *testing.T) {
	named := metav1.ObjectMeta{Name: "demo"}
	for name, b := range map[string]battery.Battery{
		"controllers": sound("demo"),
		"everynode":   sound("demo", where(battery.EveryNode)),
		"own":         sound("demo", where(battery.Own)),
		"own-deployment": sound("demo", where(battery.Own), manifests(
			&corev1.Service{ObjectMeta: named, Spec: corev1.ServiceSpec{
				Selector: battery.Selector("demo"), Ports: []corev1.ServicePort{{Port: 80}},
			}},
			&appsv1.Deployment{ObjectMeta: named, Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				SecurityContext: &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}}},
				Volumes:         []corev1.Volume{{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Memory"}}}},
				Containers: []corev1.Container{
					{Name: "sidecar", Image: "other"},
					{
						Name: "demo", Args: []string{"run", "demo", "--loud"},
						Env:             []corev1.EnvVar{{Name: "POD_IP", Value: "127.0.0.1"}},
						SecurityContext: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_BIND_SERVICE"}}},
					},
				},
			}}}},
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "emerald-demo", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "baseline"}}},
		)),
		"own-statefulset": sound("demo", where(battery.Own), manifests(&appsv1.StatefulSet{ObjectMeta: named})),
		"own-daemonset": sound("demo", where(battery.Own), manifests(&appsv1.DaemonSet{ObjectMeta: named, Spec: appsv1.DaemonSetSpec{
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(false), RunAsUser: new(int64(0)), RunAsGroup: new(int64(0))},
				Containers: []corev1.Container{{
					Name: "demo", SecurityContext: &corev1.SecurityContext{Privileged: new(true)},
				}},
			}},
		}})),
	} {
		t.Run(name, func(t *testing.T) {
			objs, err := battery.Complete(&b, site())
			if err != nil {
				t.Fatal(err)
			}
			got, err := kube.YAML(objs)
			if err != nil {
				t.Fatal(err)
			}
			batterytest.Golden(t, "testdata/"+name+".yaml", got)
		})
	}
}

func TestShared(t *testing.T) {
	certs, apps := sound("certs"), sound("apps", where(battery.Controllers))
	journal, dns := sound("journal", where(battery.EveryNode)), sound("dns", where(battery.Own))
	policy := sound("policy", func(b *battery.Battery) { b.Run = nil })
	configs := map[string]any{"certs": knobs{Servers: 1}, "apps": nil, "journal": knobs{}}
	for name, on := range map[string][]battery.Battery{
		"shared-nothing":     {dns},
		"shared-controllers": {certs, apps, dns, policy},
		"shared-both":        {certs, journal},
	} {
		t.Run(name, func(t *testing.T) {
			objs, err := battery.Shared(on, configs, site())
			if err != nil {
				t.Fatal(err)
			}
			got, err := kube.YAML(objs)
			if err != nil {
				t.Fatal(err)
			}
			batterytest.Golden(t, "testdata/"+name+".yaml", got)
		})
	}
}

func TestCompleteKnowsTheScopeOfItsOwnKinds(t *testing.T) {
	untyped := func(kind string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "example.org/v1", "kind": kind, "metadata": map[string]any{"name": "x"},
		}}
	}
	crd := &apiextensionsv1.CustomResourceDefinition{Spec: apiextensionsv1.CustomResourceDefinitionSpec{
		Group: "example.org", Scope: apiextensionsv1.ClusterScoped, Names: apiextensionsv1.CustomResourceDefinitionNames{Kind: "Galaxy"},
	}}
	b := sound("demo", manifests(untyped("Galaxy"), untyped("Planet"), crd))
	objs, err := battery.Complete(&b, site())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, o := range objs {
		got[o.GetObjectKind().GroupVersionKind().Kind] = o.GetNamespace()
	}
	want := map[string]string{
		"Namespace": "", "CustomResourceDefinition": "", "ServiceAccount": "emerald-demo", "Role": "emerald-demo",
		"RoleBinding": "emerald-demo", "Galaxy": "", "Planet": "emerald-demo",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("namespaces (-want +got):\n%s", diff)
	}
}

func TestCompletePassesErrorsOn(t *testing.T) {
	bad := errors.New("port 0 is no port")
	b := sound("demo", func(b *battery.Battery) {
		b.Manifests = func(battery.Site) ([]kube.Object, error) { return nil, bad }
	})
	if _, err := battery.Complete(&b, site()); !errors.Is(err, bad) {
		t.Errorf("Complete = %v, want %v", err, bad)
	}
}

func TestCompleteRefusesToChangeSharedPods(t *testing.T) {
	for _, place := range []battery.Place{battery.Controllers, battery.EveryNode} {
		b := sound("demo", where(place), manifests(&appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "demo"}}))
		if _, err := battery.Complete(&b, site()); err == nil {
			t.Errorf("a battery that runs in %s renders a workload of its own", place)
		}
	}
}

func TestFingerprint(t *testing.T) {
	of := func(s battery.Site) string {
		settings, err := s.Settings()
		if err != nil {
			t.Fatal(err)
		}
		f, err := settings.Fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	more, other := site(), site()
	more.Replicas = 5
	other.Config = knobs{Servers: 3}
	if of(site()) != of(more) {
		t.Error("another number of machines would restart every battery")
	}
	if of(site()) == of(other) {
		t.Error("other settings would restart nothing")
	}
}
