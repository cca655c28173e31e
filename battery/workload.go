package battery

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/emerald-platform/emerald/kit/kube"
)

// ReadyPort is where the process of every battery reports its health over
// HTTP: /livez, /readyz and /metrics.
const ReadyPort = 9090

// SiteFile is where a battery's process finds the settings it was rendered
// with: a file of its own, mounted read-only from the ConfigMap "site" of the
// battery's namespace, whose change rolls the workload.
const SiteFile = "/etc/emerald/site.json"

// Complete renders a battery whole: the objects of its Manifests, and around
// them what every battery has, so that no battery repeats it.
//
// It adds, unless Manifests returned one of the same kind and name:
//   - the Namespace emerald-<name>, enforcing Pod Security "restricted";
//   - the ServiceAccount <name> in it;
//   - for Where == Own, the ConfigMap "site", a Deployment <name> with
//     Site.Replicas copies, and a PodDisruptionBudget that lets one copy go at
//     a time;
//   - otherwise the Role and RoleBinding that let the shared workload
//     impersonate that ServiceAccount, and nobody else.
//
// A Deployment, StatefulSet or DaemonSet called <name> in the namespace is
// completed: every field that Manifests left empty gets its default. The
// container called <name>, added when missing, gets the platform's image, the
// command `emerald run <name>`, the probes on [ReadyPort], and a security
// context without root, privileges, capabilities or a writable root
// filesystem. Pods prefer different machines and zones, and get the labels of
// [Selector].
//
// Every object gets the label emerald.dev/battery, its kind and apiVersion,
// and, where its kind lives in a namespace and it names none, the battery's.
// The order of the result is the order of application: namespaces and CRDs
// first. Like Manifests, Complete is pure.
func Complete(b *Battery, s Site) ([]kube.Object, error) {
	s.Namespace = NamespaceOf(b.Name)
	s.Kube, s.Log, s.Ready = nil, nil, nil
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
	switch b.Where {
	case Own:
		if err := r.addWorkload(); err != nil {
			return nil, fmt.Errorf("render battery %q: %w", b.Name, err)
		}
		r.addBudget()
	case Controllers:
		r.addImpersonation(ControllersWorkload)
	case EveryNode:
		r.addImpersonation(NodeWorkload)
	}
	return r.finish()
}

// Selector returns the labels that every pod of the battery's own workload
// carries: what its Services and policies select.
func Selector(name string) map[string]string {
	return map[string]string{"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "emerald"}
}

// SiteSettings is the part of a Site that reaches a battery's process through
// [SiteFile]. Replicas is there for whoever asks, but its change alone rolls
// nothing: a machine that joins must not restart every battery.
type SiteSettings struct {
	Domain          string          `json:"domain"`
	Image           string          `json:"image"`
	Replicas        int32           `json:"replicas"`
	ClusterDomain   string          `json:"clusterDomain"`
	DNSAddress      string          `json:"dnsAddress"`
	RegistryAddress string          `json:"registryAddress"`
	DataDir         string          `json:"dataDir,omitempty"`
	Config          json.RawMessage `json:"config,omitempty"`

	// Batteries holds, in the file of a shared workload, the Config of each
	// battery it runs, by name; null for one without. Config is empty then.
	Batteries map[string]json.RawMessage `json:"batteries,omitempty"`
}

// Fingerprint returns a short digest of everything whose change must restart
// the processes that read the settings. It is the value of the annotation
// [AnnotationSite] on their pods.
func (s SiteSettings) Fingerprint() (string, error) {
	s.Replicas = 0
	raw, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("encode the settings: %w", err)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8]), nil
}

// Settings returns what of the site goes into [SiteFile].
func (s Site) Settings() (SiteSettings, error) {
	out := SiteSettings{
		Domain: s.Domain, Image: s.Image, Replicas: s.Replicas, ClusterDomain: s.ClusterDomain,
		DNSAddress: s.DNSAddress, RegistryAddress: s.RegistryAddress, DataDir: s.DataDir,
	}
	if s.Config != nil {
		raw, err := json.Marshal(s.Config)
		if err != nil {
			return out, fmt.Errorf("encode the settings: %w", err)
		}
		out.Config = raw
	}
	return out, nil
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
	raw, err := json.Marshal(settings)
	if err != nil {
		return fmt.Errorf("encode the settings: %w", err)
	}
	r.objects = append(r.objects, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "site"},
		Data:       map[string]string{"site.json": string(raw)},
	})

	selector := &metav1.LabelSelector{MatchLabels: Selector(name)}
	fingerprint, err := settings.Fingerprint()
	if err != nil {
		return err
	}
	complete := func(t *corev1.PodTemplateSpec) { r.completePod(t, fingerprint) }
	if d, ok := find[*appsv1.DaemonSet](r.objects, name); ok {
		d.Spec.Selector = selector
		complete(&d.Spec.Template)
		return nil
	}
	if d, ok := find[*appsv1.StatefulSet](r.objects, name); ok {
		d.Spec.Selector = selector
		setDefault(&d.Spec.Replicas, &r.site.Replicas)
		if d.Spec.ServiceName == "" {
			d.Spec.ServiceName = name
		}
		complete(&d.Spec.Template)
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
	complete(&d.Spec.Template)
	return nil
}

// addBudget keeps a drain from taking the last copy while there are two, and
// never blocks one: a single copy may always be moved.
func (r *rendering) addBudget() {
	name := r.battery.Name
	_, have := find[*policyv1.PodDisruptionBudget](r.objects, name)
	_, daemons := find[*appsv1.DaemonSet](r.objects, name)
	if have || daemons {
		return
	}
	r.objects = append(r.objects, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MaxUnavailable:             ptr(intstr.FromInt32(1)),
			Selector:                   &metav1.LabelSelector{MatchLabels: Selector(name)},
			UnhealthyPodEvictionPolicy: ptr(policyv1.AlwaysAllow),
		},
	})
}

// addImpersonation lets the shared workload act as the battery's account.
func (r *rendering) addImpersonation(workload string) {
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
}

func (r *rendering) completePod(t *corev1.PodTemplateSpec, fingerprint string) {
	name := r.battery.Name
	t.Labels = merge(t.Labels, Selector(name))
	t.Labels = merge(t.Labels, map[string]string{LabelBattery: name})
	t.Annotations = merge(t.Annotations, map[string]string{AnnotationSite: fingerprint})
	p := &t.Spec
	setDefault(&p.EnableServiceLinks, ptr(false))
	if p.ServiceAccountName == "" {
		p.ServiceAccountName = name
	}
	if p.PriorityClassName == "" {
		p.PriorityClassName = "system-cluster-critical"
	}
	setDefault(&p.SecurityContext, &corev1.PodSecurityContext{
		RunAsNonRoot:   ptr(true),
		RunAsUser:      ptr(int64(UserID)),
		RunAsGroup:     ptr(int64(UserID)),
		FSGroup:        ptr(int64(UserID)),
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	})
	if len(p.TopologySpreadConstraints) == 0 {
		for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelHostname} {
			p.TopologySpreadConstraints = append(p.TopologySpreadConstraints, corev1.TopologySpreadConstraint{
				MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: corev1.ScheduleAnyway,
				LabelSelector: &metav1.LabelSelector{MatchLabels: Selector(name)},
			})
		}
	}
	addVolume(p, corev1.Volume{Name: "site", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: "site"},
	}}})
	addVolume(p, corev1.Volume{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})

	c := container(p, name)
	if c.Image == "" {
		c.Image = r.site.Image
	}
	c.ImagePullPolicy = corev1.PullNever
	if len(c.Command) == 0 {
		c.Command = []string{"/emerald"}
	}
	if len(c.Args) == 0 {
		c.Args = []string{"run", name}
	}
	addMount(c, corev1.VolumeMount{Name: "site", MountPath: "/etc/emerald", ReadOnly: true})
	addMount(c, corev1.VolumeMount{Name: "tmp", MountPath: "/tmp"})
	setDefault(&c.ReadinessProbe, probe("/readyz", 1, 3))
	setDefault(&c.LivenessProbe, probe("/livez", 10, 6))
	setDefault(&c.StartupProbe, probe("/readyz", 1, 120))
	if c.Resources.Requests == nil {
		c.Resources.Requests = corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("10m"),
			corev1.ResourceMemory: resource.MustParse("32Mi"),
		}
	}
	addEnv(c, "POD_NAME", "metadata.name")
	addEnv(c, "POD_IP", "status.podIP")
	addEnv(c, "NODE_NAME", "spec.nodeName")
	setDefault(&c.SecurityContext, &corev1.SecurityContext{})
	setDefault(&c.SecurityContext.AllowPrivilegeEscalation, ptr(false))
	setDefault(&c.SecurityContext.ReadOnlyRootFilesystem, ptr(true))
	if c.SecurityContext.Privileged == nil || !*c.SecurityContext.Privileged {
		setDefault(&c.SecurityContext.Capabilities, &corev1.Capabilities{})
		if len(c.SecurityContext.Capabilities.Drop) == 0 {
			c.SecurityContext.Capabilities.Drop = []corev1.Capability{"ALL"}
		}
	}
}

// finish gives every object its kind, namespace and labels and sorts the
// result.
func (r *rendering) finish() ([]kube.Object, error) {
	for _, o := range r.objects {
		if err := kube.SetKind(o); err != nil {
			return nil, fmt.Errorf("render battery %q: %w", r.battery.Name, err)
		}
		if o.GetNamespace() == "" && kube.Namespaced(o, r.objects...) {
			o.SetNamespace(r.site.Namespace)
		}
		o.SetLabels(merge(o.GetLabels(), map[string]string{LabelBattery: r.battery.Name}))
	}
	kube.SortForApply(r.objects)
	return r.objects, nil
}

func container(p *corev1.PodSpec, name string) *corev1.Container {
	for i := range p.Containers {
		if p.Containers[i].Name == name {
			return &p.Containers[i]
		}
	}
	p.Containers = append(p.Containers, corev1.Container{Name: name})
	return &p.Containers[len(p.Containers)-1]
}

func addVolume(p *corev1.PodSpec, v corev1.Volume) {
	for _, have := range p.Volumes {
		if have.Name == v.Name {
			return
		}
	}
	p.Volumes = append(p.Volumes, v)
}

func probe(path string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: path, Port: intstr.FromInt32(ReadyPort),
		}},
		PeriodSeconds: period, FailureThreshold: failures, TimeoutSeconds: 5,
	}
}

// addMount mounts m unless something is mounted there.
func addMount(c *corev1.Container, m corev1.VolumeMount) {
	if !slices.ContainsFunc(c.VolumeMounts, func(h corev1.VolumeMount) bool { return h.MountPath == m.MountPath }) {
		c.VolumeMounts = append(c.VolumeMounts, m)
	}
}

// addEnv sets a variable from a field of the pod unless it is set.
func addEnv(c *corev1.Container, name, path string) {
	if !slices.ContainsFunc(c.Env, func(h corev1.EnvVar) bool { return h.Name == name }) {
		c.Env = append(c.Env, corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
			FieldRef: &corev1.ObjectFieldSelector{FieldPath: path},
		}})
	}
}
