package battery

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// ReadyPort is where the process of every battery reports its health over
// HTTP: /livez, /readyz and /metrics.
const ReadyPort = 9090

// The readiness probe asks every so many seconds, and believes a process that is
// not ready after so many answers.
const readyPeriod, readyFailures = 1, 3

// LeaveTime is how long a process can still be asked after [Site.Leave]: its probe
// must notice, and then the machines' kube-proxy, which looks once a second.
const LeaveTime = (readyPeriod*readyFailures + 3) * time.Second

// process is what a pod of the platform runs: one battery, or a shared workload.
type process struct {
	name        string   // of the container and in the labels of the pods
	account     string   // service account
	args        []string // of the program
	battery     string   // value of LabelBattery
	startup     string   // path that answers once the process has started
	image       string
	fingerprint string
	memory      string // requested; "" is what a small battery takes
	priority    string // "" is system-cluster-critical
}

// complete gives every field of the template that is empty its default.
func (w process) complete(t *corev1.PodTemplateSpec) {
	t.Labels = merge(t.Labels, Selector(w.name))
	t.Labels = merge(t.Labels, map[string]string{LabelBattery: w.battery})
	t.Annotations = merge(t.Annotations, map[string]string{AnnotationSite: w.fingerprint})
	p := &t.Spec
	setDefault(&p.EnableServiceLinks, ptr(false))
	if p.ServiceAccountName == "" {
		p.ServiceAccountName = w.account
	}
	if p.PriorityClassName == "" {
		p.PriorityClassName = cmp.Or(w.priority, "system-cluster-critical")
	}
	setDefault(&p.SecurityContext, &corev1.PodSecurityContext{})
	completeSecurity(p.SecurityContext)
	if len(p.TopologySpreadConstraints) == 0 {
		p.TopologySpreadConstraints = spread(w.name)
	}
	addVolume(p, corev1.Volume{Name: "site", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: "site"},
	}}})
	addVolume(p, corev1.Volume{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	w.completeContainer(container(p, w.name))
}

func completeSecurity(s *corev1.PodSecurityContext) {
	if s.RunAsGroup == nil {
		// Who chose a group of its own arranges what its volumes belong to.
		setDefault(&s.FSGroup, ptr(int64(UserID)))
	}
	setDefault(&s.RunAsNonRoot, ptr(true))
	setDefault(&s.RunAsUser, ptr(int64(UserID)))
	setDefault(&s.RunAsGroup, ptr(int64(UserID)))
	setDefault(&s.SeccompProfile, &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault})
}

func (w process) completeContainer(c *corev1.Container) {
	if c.Image == "" {
		c.Image = w.image
	}
	c.ImagePullPolicy = corev1.PullNever
	if len(c.Command) == 0 {
		c.Command = []string{"/emerald"}
	}
	if len(c.Args) == 0 {
		c.Args = w.args
	}
	addMount(c, corev1.VolumeMount{Name: "site", MountPath: "/etc/emerald", ReadOnly: true})
	addMount(c, corev1.VolumeMount{Name: "tmp", MountPath: "/tmp"})
	setDefault(&c.ReadinessProbe, probe("/readyz", readyPeriod, readyFailures))
	setDefault(&c.LivenessProbe, probe("/livez", 10, 6))
	setDefault(&c.StartupProbe, probe(w.startup, 1, 120))
	if c.Resources.Requests == nil {
		c.Resources.Requests = corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("10m"),
			corev1.ResourceMemory: resource.MustParse(cmp.Or(w.memory, "32Mi")),
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

// spread prefers different zones, then different machines.
func spread(name string) []corev1.TopologySpreadConstraint {
	var out []corev1.TopologySpreadConstraint
	for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelHostname} {
		out = append(out, corev1.TopologySpreadConstraint{
			MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: corev1.ScheduleAnyway,
			LabelSelector: &metav1.LabelSelector{MatchLabels: Selector(name)},
		})
	}
	return out
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
