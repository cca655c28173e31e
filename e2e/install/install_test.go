// Package install_test shows the installer at work on a real API server with
// upstream's controllers and scheduler; only the machines are played.
package install_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/battery/install"
	"github.com/emerald-platform/emerald/e2e/fixture"
	"github.com/emerald-platform/emerald/kit/kube"
	"github.com/emerald-platform/emerald/platform/isolated"
)

func TestMain(m *testing.M) { isolated.Main(m) }

// world is the one cluster of these tests: upstream's control plane runs once
// in a process, so the tests follow each other in one story.
type world struct {
	cfg     *rest.Config
	client  *kubernetes.Clientset
	objects client.Client
	machine *machine
}

func TestInstall(t *testing.T) {
	isolated.Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	w := start(ctx, t)
	for _, step := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"batteries start in the order of their needs", order},
		{"another installer changes nothing", again},
		{"what others delete or change comes back", repair},
		{"settings are followed live", settings},
		{"bad settings are refused and the last good ones stay", refuse},
		{"an object that the API refuses is named, and holds up nobody else", refused},
		{"more machines bring more copies", spread},
		{"a battery that is turned off goes, and comes back", turnOff},
		{"the shared controllers act with the rights of their batteries", controllers},
		{"an installer that died leaves nothing unknown", crash},
		{"what the next version does not have is removed, but not what users keep", prune},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, w) }) {
			t.Fatal("the story ends here")
		}
	}
}

func start(ctx context.Context, t *testing.T) *world {
	t.Helper()
	w := &world{cfg: fixture.ControlPlane(t)}
	var err error
	if w.client, err = kubernetes.NewForConfig(w.cfg); err != nil {
		t.Fatal(err)
	}
	w.machine = newMachine(ctx, t, w.client)
	return w
}

// installer is a running Installer.
type installer struct {
	*install.Installer
	changed chan struct{}
	stop    func()
}

// install runs an Installer until the end of the test, or stop.
func (w *world) install(t *testing.T, all []battery.Battery) *installer {
	t.Helper()
	out := &installer{changed: make(chan struct{}, 1)}
	var err error
	out.Installer, err = install.New(install.Options{
		Kube: w.cfg, Batteries: all, Version: "v0.0.0-test",
		Site: battery.Site{
			Domain: "emerald.localhost", Image: "emerald.dev/emerald@sha256:" + strings.Repeat("0", 64), ClusterDomain: "cluster.local",
			DNSAddress: "10.43.0.10", RegistryAddress: "10.43.0.11",
		},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Progress: func([]v1alpha1.BatteryStatus) {
			select {
			case out.changed <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- out.Run(ctx) }()
	stopped := false
	out.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	}
	t.Cleanup(out.stop)
	return out
}

// phases returns the state as "name:Phase", with messages where they matter.
func (in *installer) phases() map[string]string {
	out := map[string]string{}
	for _, s := range in.Status() {
		if s.Name == battery.SystemBattery && s.Phase == v1alpha1.PhaseReady {
			continue
		}
		out[s.Name] = string(s.Phase)
		if s.Phase == v1alpha1.PhaseWaiting || s.Phase == v1alpha1.PhaseFailed || s.Phase == v1alpha1.PhaseOff && s.Message != "" {
			out[s.Name] += ": " + s.Message
		}
	}
	return out
}

// until waits for these phases.
func (in *installer) until(t *testing.T, want map[string]string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		diff := cmp.Diff(want, in.phases())
		if diff == "" {
			return
		}
		select {
		case <-in.changed:
		case <-deadline:
			t.Fatalf("phases (-want +got):\n%s\n%v", diff, in.Status())
		}
	}
}

func ready(names ...string) map[string]string {
	out := map[string]string{}
	for _, n := range names {
		out[n] = "Ready"
	}
	return out
}

func allReady() map[string]string { return ready("base", "things", "top", "loner") }

// eventually waits for a condition of the cluster.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func order(t *testing.T, w *world) {
	w.machine.join(t.Context(), t, "one")
	w.machine.hold("base")
	w.machine.hold("things")
	began := time.Now()
	in := w.install(t, first())
	in.until(t, map[string]string{
		"base": "Starting", "things": "Starting", "loner": "Ready", "top": "Waiting: waits for base, things",
	})
	t.Logf("everything that can start had started after %v", time.Since(began))
	// What starts nothing is there already, what starts something is not.
	if _, err := w.client.CoreV1().ServiceAccounts("emerald-top").Get(t.Context(), "top", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := w.client.AppsV1().Deployments("emerald-top").Get(t.Context(), "top", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Deployment of a battery that waits: %v, want not found", err)
	}
	w.machine.release(t.Context(), t, "things")
	in.until(t, map[string]string{"base": "Starting", "things": "Ready", "loner": "Ready", "top": "Waiting: waits for base"})
	w.machine.release(t.Context(), t, "base")
	in.until(t, allReady())
	t.Logf("everything was ready after %v", time.Since(began))
	eventually(t, "the Platform says so", func() error {
		p := w.platform(t)
		if c := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionReady); c == nil || c.Status != metav1.ConditionTrue {
			return fmt.Errorf("conditions %v", p.Status.Conditions)
		}
		if c := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionAccepted); c == nil || c.Status != metav1.ConditionTrue {
			return fmt.Errorf("conditions %v", p.Status.Conditions)
		}
		if len(p.Status.Batteries) != 5 || p.Status.Domain != "emerald.localhost" || p.Status.Version != "v0.0.0-test" {
			return fmt.Errorf("status %+v", p.Status)
		}
		return nil
	})
}

// again shows that an installer which comes upon its own work writes nothing.
func again(t *testing.T, w *world) {
	before := w.versions(t)
	in := w.install(t, first())
	in.until(t, allReady())
	if diff := cmp.Diff(before, w.versions(t)); diff != "" {
		t.Errorf("versions of the objects changed (-before +after):\n%s", diff)
	}
}

// versions returns the resource versions of what was applied, and whose status
// nobody writes.
func (w *world) versions(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	add := func(kind string, o metav1.Object) {
		out[kind+" "+o.GetNamespace()+"/"+o.GetName()] = o.GetResourceVersion()
	}
	labelled := metav1.ListOptions{LabelSelector: battery.LabelBattery}
	services, err := w.client.CoreV1().Services("").List(t.Context(), labelled)
	if err != nil {
		t.Fatal(err)
	}
	for i := range services.Items {
		add("Service", &services.Items[i])
	}
	maps, err := w.client.CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range maps.Items {
		if strings.HasPrefix(maps.Items[i].Namespace, "emerald-") {
			add("ConfigMap", &maps.Items[i])
		}
	}
	roles, err := w.client.RbacV1().Roles("").List(t.Context(), labelled)
	if err != nil {
		t.Fatal(err)
	}
	for i := range roles.Items {
		add("Role", &roles.Items[i])
	}
	deployments, err := w.client.AppsV1().Deployments("").List(t.Context(), labelled)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range deployments.Items {
		out["Deployment "+d.Namespace+"/"+d.Name] = fmt.Sprint(d.Generation)
	}
	return out
}

func repair(t *testing.T, w *world) {
	in := w.install(t, first())
	in.until(t, allReady())
	began := time.Now()
	if err := w.client.CoreV1().Services("emerald-base").Delete(t.Context(), "base0", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := w.client.AppsV1().Deployments("emerald-top").Delete(t.Context(), "top", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	patch := []byte(`{"data": {"a": "changed", "users": "own"}}`)
	_, err := w.client.CoreV1().ConfigMaps("emerald-things").Patch(t.Context(), "words", types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a deleted Service", func() error {
		_, err := w.client.CoreV1().Services("emerald-base").Get(t.Context(), "base0", metav1.GetOptions{})
		return err
	})
	eventually(t, "a deleted Deployment", func() error {
		_, err := w.client.AppsV1().Deployments("emerald-top").Get(t.Context(), "top", metav1.GetOptions{})
		return err
	})
	eventually(t, "a changed ConfigMap", func() error {
		cm, err := w.client.CoreV1().ConfigMaps("emerald-things").Get(t.Context(), "words", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if diff := cmp.Diff(map[string]string{"a": "b", "users": "own"}, cm.Data); diff != "" {
			return fmt.Errorf("data (-want +got):\n%s", diff)
		}
		return nil
	})
	t.Logf("repaired after %v", time.Since(began))
	in.until(t, allReady())
}

func (w *world) platform(t *testing.T) *v1alpha1.Platform {
	t.Helper()
	p := &v1alpha1.Platform{}
	if err := w.api(t).Get(t.Context(), client.ObjectKey{Name: v1alpha1.PlatformName}, p); err != nil {
		t.Fatal(err)
	}
	return p
}

// api returns a client for the platform's own types, which exist only once the
// installer has run.
func (w *world) api(t *testing.T) client.Client {
	t.Helper()
	if w.objects != nil {
		return w.objects
	}
	c, err := client.New(w.cfg, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := v1alpha1.AddToScheme(c.Scheme()); err != nil {
		t.Fatal(err)
	}
	w.objects = c
	return c
}

// set changes the Platform by a merge patch.
func (w *world) set(t *testing.T, patch string) {
	t.Helper()
	p := &v1alpha1.Platform{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.PlatformName}}
	if err := w.api(t).Patch(t.Context(), p, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
}

// acceptance waits until the Platform's settings are in force, or not.
func (w *world) acceptance(t *testing.T, want metav1.ConditionStatus) string {
	t.Helper()
	var message string
	eventually(t, "the condition Accepted", func() error {
		p := w.platform(t)
		c := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionAccepted)
		if c == nil || c.Status != want || c.ObservedGeneration != p.Generation {
			return fmt.Errorf("%+v of generation %d, want %s", c, p.Generation, want)
		}
		message = c.Message
		return nil
	})
	return message
}

func (w *world) services(t *testing.T) []string {
	t.Helper()
	list, err := w.client.CoreV1().Services("emerald-base").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range list.Items {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return names
}

func (w *world) untilServices(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, "the services of base", func() error {
		if diff := cmp.Diff(want, w.services(t)); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
}

func settings(t *testing.T, w *world) {
	in := w.install(t, first())
	in.until(t, allReady())
	w.set(t, `{"spec": {"domain": "example.org", "batteries": {"base": {"config": {"services": 3}}}}}`)
	w.acceptance(t, metav1.ConditionTrue)
	w.untilServices(t, "base0", "base1", "base2")
	w.set(t, `{"spec": {"batteries": {"base": {"config": {"services": 1}}}}}`)
	w.untilServices(t, "base0")
	cm, err := w.client.CoreV1().ConfigMaps("emerald-base").Get(t.Context(), "site", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"domain":"example.org"`, `"config":{"services":1}`} {
		if !strings.Contains(cm.Data["site.json"], part) {
			t.Errorf("the settings of base %s lack %s", cm.Data["site.json"], part)
		}
	}
	in.until(t, allReady())
}

func refuse(t *testing.T, w *world) {
	in := w.install(t, first())
	in.until(t, allReady())
	for _, tc := range []struct{ name, patch, want string }{
		{"an unknown battery", `{"spec": {"batteries": {"bsae": {"enabled": true}}}}`, `there is no battery "bsae": there are base, loner, things, top`},
		{"an unknown field", `{"spec": {"batteries": {"bsae": null, "base": {"config": {"servics": 2}}}}}`, `unknown field "servics": there are level, services`},
		{"a value that makes no sense", `{"spec": {"batteries": {"base": {"config": {"servics": null, "services": 12}}}}}`, "setting `services` is 12: at most 9"},
		{"one that others need", `{"spec": {"batteries": {"base": {"enabled": false, "config": {"services": 1}}}}}`, `battery "base" cannot be off: battery "top" needs it`},
	} {
		w.set(t, tc.patch)
		if got := w.acceptance(t, metav1.ConditionFalse); !strings.Contains(got, tc.want) {
			t.Errorf("%s: message %q, want %q in it", tc.name, got, tc.want)
		}
		if diff := cmp.Diff([]string{"base0"}, w.services(t)); diff != "" {
			t.Errorf("%s changed the services (-want +got):\n%s", tc.name, diff)
		}
	}
	in.stop()

	// Who comes next finds the bad settings, and keeps to the good ones.
	in = w.install(t, first())
	in.until(t, allReady())
	w.acceptance(t, metav1.ConditionFalse)
	if diff := cmp.Diff([]string{"base0"}, w.services(t)); diff != "" {
		t.Errorf("the next installer changed the services (-want +got):\n%s", diff)
	}
	w.set(t, `{"spec": {"domain": null, "batteries": null}}`)
	w.acceptance(t, metav1.ConditionTrue)
	w.untilServices(t, "base0", "base1")
	in.until(t, allReady())
}

func refused(t *testing.T, w *world) {
	all := first()
	sound := all[3].Manifests
	all[3].Manifests = func(s battery.Site) ([]kube.Object, error) {
		objs, err := sound(s)
		port := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 70000, TargetPort: intstr.FromInt32(80)}}}}
		return append(objs, port), err
	}
	in := w.install(t, all)
	in.until(t, map[string]string{
		"base": "Ready", "things": "Ready", "top": "Ready",
		"loner": `Failed: apply Service "emerald-loner/bad": Service "bad" is invalid: spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive`,
	})
	in.stop()
	in = w.install(t, first())
	in.until(t, allReady())
}

func spread(t *testing.T, w *world) {
	in := w.install(t, first())
	in.until(t, allReady())
	copies := func(want int32) {
		t.Helper()
		eventually(t, "the copies of base", func() error {
			d, err := w.client.AppsV1().Deployments("emerald-base").Get(t.Context(), "base", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if *d.Spec.Replicas != want || d.Status.ReadyReplicas != want {
				return fmt.Errorf("%d wanted, %d ready, want %d", *d.Spec.Replicas, d.Status.ReadyReplicas, want)
			}
			return nil
		})
		in.until(t, allReady())
	}
	revision := func() string {
		d, err := w.client.AppsV1().Deployments("emerald-base").Get(t.Context(), "base", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return d.Annotations["deployment.kubernetes.io/revision"]
	}
	copies(1)
	before := revision()
	w.machine.join(t.Context(), t, "two")
	copies(2)
	w.machine.join(t.Context(), t, "three")
	w.machine.leave(t.Context(), t, "three")
	copies(2)
	w.machine.leave(t.Context(), t, "two")
	copies(1)
	if after := revision(); after != before {
		t.Errorf("revision %s became %s: a machine that joins restarts the battery", before, after)
	}
}

func turnOff(t *testing.T, w *world) {
	in := w.install(t, first())
	in.until(t, allReady())
	w.set(t, `{"spec": {"batteries": {"top": {"enabled": false}, "base": {"enabled": false}, "loner": {"enabled": false}}}}`)
	w.acceptance(t, metav1.ConditionTrue)
	in.until(t, map[string]string{"things": "Ready", "top": "Off", "base": "Off", "loner": "Off"})
	for _, ns := range []string{"emerald-top", "emerald-base", "emerald-loner"} {
		w.gone(t, ns)
	}
	w.set(t, `{"spec": {"batteries": null}}`)
	in.until(t, allReady())
}

// gone waits until a namespace is.
func (w *world) gone(t *testing.T, ns string) {
	t.Helper()
	eventually(t, "namespace "+ns+" goes", func() error {
		_, err := w.client.CoreV1().Namespaces().Get(t.Context(), ns, metav1.GetOptions{})
		if err == nil {
			return fmt.Errorf("it is still there")
		}
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
}

// crash stops installers in the middle of their work, again and again, while
// the settings change under them.
func crash(t *testing.T, w *world) {
	for i := range 12 {
		w.set(t, fmt.Sprintf(`{"spec": {"batteries": {"base": {"config": {"services": %d}}, "loner": {"enabled": %t}}}}`, 1+(i*5)%9, i%2 == 0))
		in := w.install(t, first())
		select {
		case <-in.changed: // somewhere in the middle, another time each time
		case <-time.After(time.Duration(i) * 20 * time.Millisecond):
		}
		in.stop()
	}
	w.set(t, `{"spec": {"batteries": {"base": {"config": {"services": 2}}, "loner": {"enabled": true}}}}`)
	in := w.install(t, first())
	in.until(t, allReady())
	w.acceptance(t, metav1.ConditionTrue)
	w.untilServices(t, "base0", "base1")
}

func prune(t *testing.T, w *world) {
	// A user's own thing, in a namespace of their own; and a secret in top's.
	mine := thing("mine")
	mine.SetNamespace("default")
	if err := w.api(t).Create(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "emerald-top", Name: "key"}, StringData: map[string]string{"a": "b"}}
	if _, err := w.client.CoreV1().Secrets("emerald-top").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// Something that was the installer's, and is now somebody else's.
	adopt := []byte(`{"metadata": {"labels": {"emerald.dev/battery": "not-yours"}}}`)
	if _, err := w.client.CoreV1().ServiceAccounts("emerald-top").Patch(t.Context(), "top", types.MergePatchType, adopt, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}

	in := w.install(t, second())
	in.until(t, map[string]string{
		"base": "Ready", "things": "Ready", "top": `Off: keeps what users have in Namespace "emerald-top"`,
	})
	w.gone(t, "emerald-loner")
	if _, err := w.client.AppsV1().Deployments("emerald-top").Get(t.Context(), "top", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Deployment of a battery that is no more: %v, want not found", err)
	}
	if _, err := w.client.CoreV1().ServiceAccounts("emerald-top").Get(t.Context(), "top", metav1.GetOptions{}); err != nil {
		t.Errorf("an object that somebody took over: %v", err)
	}
	if err := w.api(t).Get(t.Context(), client.ObjectKey{Namespace: "emerald-top", Name: "top"}, thing("top")); !apierrors.IsNotFound(err) {
		t.Errorf("the custom resource of a battery that is no more: %v, want not found", err)
	}
	in.stop()

	in = w.install(t, second()[:1])
	in.until(t, map[string]string{
		"base": "Ready", "top": `Off: keeps what users have in Namespace "emerald-top"`,
		"things": `Off: keeps what users have in CustomResourceDefinition "things.test.emerald.dev"`,
	})
	if err := w.api(t).Get(t.Context(), client.ObjectKeyFromObject(mine), mine); err != nil {
		t.Errorf("the user's thing: %v", err)
	}
	in.stop()

	// The user lets go of them.
	if err := w.api(t).Delete(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	if err := w.client.CoreV1().Secrets("emerald-top").Delete(t.Context(), "key", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	in = w.install(t, second()[:1])
	in.until(t, ready("base"))
	w.gone(t, "emerald-top")
	w.gone(t, "emerald-things")
	list, err := w.client.CoreV1().ConfigMaps(battery.SystemNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: "emerald.dev/inventory"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, cm := range list.Items {
		names = append(names, cm.Name)
	}
	if diff := cmp.Diff([]string{"inventory-base", "inventory-system"}, names); diff != "" {
		t.Errorf("inventories (-want +got):\n%s", diff)
	}
}
