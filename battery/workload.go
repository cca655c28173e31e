package battery

import (
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/emerald-platform/emerald/kit/kube"
)

// Complete renders a battery whole: the objects of its Manifests, and around
// them what every battery has, so that no battery repeats it.
//
// It adds, unless Manifests returned one of the same kind and name:
//   - the Namespace emerald-<name>, enforcing Pod Security "restricted";
//   - the ServiceAccount <name> in it;
//   - for Where == Own, the ConfigMap "site", a Deployment <name> with
//     Site.Replicas copies, and a PodDisruptionBudget that lets one copy go at
//     a time;
//   - otherwise, when it has a Run, the Role and RoleBinding that let the
//     shared workload impersonate that ServiceAccount, and nobody else.
//
// A Deployment, StatefulSet or DaemonSet called <name> in the namespace is
// completed: every field that Manifests left empty gets its default. The
// container called <name>, added when missing, gets the platform's image, the
// command `emerald run <name>`, the probes on [ReadyPort], and a security
// context without root, privileges, capabilities or a writable root
// filesystem. Pods prefer different machines and zones, and get the labels of
// [Selector]. A battery of a shared workload that renders such an object is an
// error.
//
// Every object gets the label emerald.dev/battery, its kind and apiVersion,
// and, where its kind lives in a namespace and it names none, the battery's.
// The order of the result is the order of application: namespaces and CRDs
// first. Like Manifests, Complete is pure.
func Complete(b *Battery, s Site) ([]kube.Object, error) {
	s.Namespace = NamespaceOf(b.Name)
	s.Kube, s.Log, s.Ready, s.Leave = nil, nil, nil, nil
	var objs []kube.Object
	if b.Manifests != nil {
		var err error
		if objs, err = b.Manifests(s); err != nil {
			return nil, fmt.Errorf("render battery %q: %w", b.Name, err)
		}
	}
	r := rendering{battery: b, site: s, objects: objs}
	r.addNamespace()
	r.addServiceAccount()
	switch {
	case b.Run == nil:
	case b.Where == Own:
		if err := r.addWorkload(); err != nil {
			return nil, fmt.Errorf("render battery %q: %w", b.Name, err)
		}
	default:
		if err := r.addImpersonation(); err != nil {
			return nil, fmt.Errorf("render battery %q: %w", b.Name, err)
		}
	}
	if err := finish(r.objects, r.battery.Name, r.site.Namespace); err != nil {
		return nil, fmt.Errorf("render battery %q: %w", b.Name, err)
	}
	return r.objects, nil
}

// Selector returns the labels that every pod of the battery's own workload
// carries: what its Services and policies select.
func Selector(name string) map[string]string {
	return map[string]string{"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "emerald"}
}

// rendering is one run of Complete.
type rendering struct {
	battery *Battery
	site    Site
	objects []kube.Object
}

// find returns the first object of type T that has the given name, or the zero
// value.
func find[T kube.Object](objs []kube.Object, name string) (T, bool) {
	for _, o := range objs {
		if t, ok := o.(T); ok && t.GetName() == name {
			return t, true
		}
	}
	var zero T
	return zero, false
}

func (r *rendering) addNamespace() {
	ns, ok := find[*corev1.Namespace](r.objects, r.site.Namespace)
	if !ok {
		ns = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: r.site.Namespace}}
		r.objects = append(r.objects, ns)
	}
	if ns.Labels == nil {
		ns.Labels = map[string]string{}
	}
	if ns.Labels[podSecurityLabel] == "" {
		ns.Labels[podSecurityLabel] = "restricted"
	}
}

const podSecurityLabel = "pod-security.kubernetes.io/enforce"

func (r *rendering) addServiceAccount() {
	if _, ok := find[*corev1.ServiceAccount](r.objects, r.battery.Name); ok {
		return
	}
	r.objects = append(r.objects, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: r.battery.Name}})
}

func (r *rendering) addWorkload() error {
	name := r.battery.Name
	settings, err := r.site.Settings()
	if err != nil {
		return err
	}
	file, err := settings.configMap()
	if err != nil {
		return err
	}
	r.objects = append(r.objects, file)
	fingerprint, err := settings.Fingerprint()
	if err != nil {
		return err
	}
	process := process{
		name: name, account: name, args: []string{"run", name}, battery: name, startup: "/readyz",
		image: r.site.Image, fingerprint: fingerprint,
	}

	selector := &metav1.LabelSelector{MatchLabels: Selector(name)}
	if d, ok := find[*appsv1.DaemonSet](r.objects, name); ok {
		d.Spec.Selector = selector
		process.complete(&d.Spec.Template)
		return nil
	}
	if d, ok := find[*appsv1.StatefulSet](r.objects, name); ok {
		d.Spec.Selector = selector
		setDefault(&d.Spec.Replicas, &r.site.Replicas)
		if d.Spec.ServiceName == "" {
			d.Spec.ServiceName = name
		}
		process.complete(&d.Spec.Template)
		r.addBudget()
		return nil
	}
	d, ok := find[*appsv1.Deployment](r.objects, name)
	if !ok {
		d = &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}}
		r.objects = append(r.objects, d)
	}
	d.Spec.Selector = selector
	setDefault(&d.Spec.Replicas, &r.site.Replicas)
	setDefault(&d.Spec.RevisionHistoryLimit, ptr(int32(2)))
	process.complete(&d.Spec.Template)
	r.addBudget()
	return nil
}

func (r *rendering) addBudget() {
	if _, have := find[*policyv1.PodDisruptionBudget](r.objects, r.battery.Name); !have {
		r.objects = append(r.objects, budget(r.battery.Name))
	}
}

// budget keeps a drain from taking the last copy while there are two, and never
// blocks one: a single copy may always be moved.
func budget(name string) *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MaxUnavailable:             ptr(intstr.FromInt32(1)),
			Selector:                   &metav1.LabelSelector{MatchLabels: Selector(name)},
			UnhealthyPodEvictionPolicy: ptr(policyv1.AlwaysAllow),
		},
	}
}

// errShared is a battery that wants to change pods it shares with others.
var errShared = errors.New("it runs in a workload it shares with others, and cannot render one: use Where: Own")

// addImpersonation lets the shared workload act as the battery's account.
func (r *rendering) addImpersonation() error {
	name, workload := r.battery.Name, ControllersWorkload
	if r.battery.Where == EveryNode {
		workload = NodeWorkload
	}
	_, deployment := find[*appsv1.Deployment](r.objects, name)
	_, statefulSet := find[*appsv1.StatefulSet](r.objects, name)
	_, daemonSet := find[*appsv1.DaemonSet](r.objects, name)
	if deployment || statefulSet || daemonSet {
		return errShared
	}
	r.objects = append(r.objects,
		&rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Name: workload},
			Rules: []rbacv1.PolicyRule{{
				APIGroups: []string{""}, Resources: []string{"serviceaccounts"},
				ResourceNames: []string{r.battery.Name}, Verbs: []string{"impersonate"},
			}},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: workload},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: workload},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: SystemNamespace, Name: workload}},
		})
	return nil
}

// finish gives every object its kind, namespace and labels and sorts them.
func finish(objs []kube.Object, battery, namespace string) error {
	for _, o := range objs {
		if err := kube.SetKind(o); err != nil {
			return err
		}
		if o.GetNamespace() == "" && kube.Namespaced(o, objs...) {
			o.SetNamespace(namespace)
		}
		o.SetLabels(merge(o.GetLabels(), map[string]string{LabelBattery: battery}))
	}
	kube.SortForApply(objs)
	return nil
}
