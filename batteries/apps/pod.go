package apps

import (
	"encoding/json"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// podSpec is one copy of the app.
func (r rendering) podSpec() (corev1.PodSpec, error) {
	spec := r.app.Spec
	resources, err := r.resources()
	if err != nil {
		return corev1.PodSpec{}, err
	}
	pod := corev1.PodSpec{
		ServiceAccountName:            r.app.Name,
		AutomountServiceAccountToken:  new(false),
		EnableServiceLinks:            new(false),
		TerminationGracePeriodSeconds: new(int64(graceSeconds)),
		TopologySpreadConstraints:     r.spread(),
		Containers: []corev1.Container{{
			Name: "app", Image: spec.Image, ImagePullPolicy: pullPolicy(spec.Image),
			Command: spec.Command, Args: spec.Args,
			Ports:     []corev1.ContainerPort{{Name: "http", ContainerPort: spec.Port, Protocol: corev1.ProtocolTCP}},
			Env:       environment(spec),
			Resources: resources,
			// The app may take minutes to start; once it did, it is asked
			// seldom. It is never restarted for being slow: under load that
			// would take the rest down, too.
			StartupProbe:   r.probe(1, deadlineSeconds),
			ReadinessProbe: r.probe(5, 3),
			Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{
				Sleep: &corev1.SleepAction{Seconds: drainSeconds},
			}},
		}},
	}
	mountSecrets(&pod, spec.Secrets)
	r.secure(&pod)
	return pod, nil
}

func pullPolicy(image string) corev1.PullPolicy {
	if pinned(image) {
		return corev1.PullIfNotPresent
	}
	return corev1.PullAlways
}

// spread prefers other zones and machines for each copy of a revision (KEP-3243).
func (r rendering) spread() []corev1.TopologySpreadConstraint {
	var out []corev1.TopologySpreadConstraint
	for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelHostname} {
		out = append(out, corev1.TopologySpreadConstraint{
			MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: corev1.ScheduleAnyway,
			LabelSelector:  &metav1.LabelSelector{MatchLabels: r.selector()},
			MatchLabelKeys: []string{"pod-template-hash"},
		})
	}
	return out
}

func (r rendering) probe(period, failures int32) *corev1.Probe {
	health := v1alpha1.Health{}
	if r.app.Spec.Health != nil {
		health = *r.app.Spec.Health
	}
	port := intstr.FromString("http")
	if health.Port != 0 {
		port = intstr.FromInt32(health.Port)
	}
	p := &corev1.Probe{PeriodSeconds: period, FailureThreshold: failures, SuccessThreshold: 1, TimeoutSeconds: 5}
	if health.Path == "" {
		p.TCPSocket = &corev1.TCPSocketAction{Port: port}
	} else {
		p.HTTPGet = &corev1.HTTPGetAction{Path: health.Path, Port: port, Scheme: corev1.URISchemeHTTP}
	}
	return p
}

func environment(spec v1alpha1.AppSpec) []corev1.EnvVar {
	env := []corev1.EnvVar{{Name: "PORT", Value: strconv.Itoa(int(spec.Port))}}
	for _, e := range spec.Env {
		v := corev1.EnvVar{Name: e.Name, Value: e.Value}
		if from := e.ValueFrom; from != nil {
			v.ValueFrom = &corev1.EnvVarSource{}
			if ref := from.SecretKeyRef; ref != nil {
				v.ValueFrom.SecretKeyRef = &corev1.SecretKeySelector{
					LocalObjectReference: corev1.LocalObjectReference{Name: ref.Name}, Key: ref.Key,
				}
			}
			if ref := from.ConfigMapKeyRef; ref != nil {
				v.ValueFrom.ConfigMapKeyRef = &corev1.ConfigMapKeySelector{
					LocalObjectReference: corev1.LocalObjectReference{Name: ref.Name}, Key: ref.Key,
				}
			}
		}
		if e.Name == "PORT" {
			env[0] = v
			continue
		}
		env = append(env, v)
	}
	return env
}

func mountSecrets(pod *corev1.PodSpec, uses []v1alpha1.SecretUse) {
	c := &pod.Containers[0]
	for i, use := range uses {
		if use.Path == "" {
			c.EnvFrom = append(c.EnvFrom, corev1.EnvFromSource{SecretRef: &corev1.SecretEnvSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: use.Name},
			}})
			continue
		}
		volume := fmt.Sprintf("secret-%d", i)
		pod.Volumes = append(pod.Volumes, corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{
			Secret: &corev1.SecretVolumeSource{SecretName: use.Name, DefaultMode: new(int32(0o444))},
		}})
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: volume, MountPath: use.Path, ReadOnly: true})
	}
}

// resources fills in the platform's defaults: nobody runs without a memory
// limit, and no default request exceeds a limit that the user set.
func (r rendering) resources() (corev1.ResourceRequirements, error) {
	defaults := r.config.Defaults
	out := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	for name, q := range r.app.Spec.Resources.Requests {
		out.Requests[name] = q
	}
	for name, q := range r.app.Spec.Resources.Limits {
		out.Limits[name] = q
	}
	fill := func(list corev1.ResourceList, name corev1.ResourceName, value string) error {
		if _, set := list[name]; set {
			return nil
		}
		q, err := resource.ParseQuantity(value)
		if err != nil {
			return fmt.Errorf("parse the default %s %q: %w", name, value, err)
		}
		list[name] = q
		return nil
	}
	if err := fill(out.Requests, corev1.ResourceCPU, defaults.CPU); err != nil {
		return out, err
	}
	if err := fill(out.Requests, corev1.ResourceMemory, defaults.Memory); err != nil {
		return out, err
	}
	if err := fill(out.Limits, corev1.ResourceMemory, defaults.MemoryLimit); err != nil {
		return out, err
	}
	for name, limit := range out.Limits {
		request := out.Requests[name]
		if request.Cmp(limit) <= 0 {
			continue
		}
		if _, set := r.app.Spec.Resources.Requests[name]; !set {
			out.Requests[name] = limit
		} else if _, set := r.app.Spec.Resources.Limits[name]; !set {
			out.Limits[name] = request
		}
	}
	return out, nil
}

// rootCapabilities are what an image that runs as root of a user namespace
// keeps: what installers and servers such as nginx use to change owners and
// drop to another user. Pod Security "baseline" allows all of them.
var rootCapabilities = []corev1.Capability{
	"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID", "SYS_CHROOT",
}

// secure holds the pod to Pod Security "restricted" as far as its image allows.
// A numeric user is checked by the kubelet. A named user runs in a user
// namespace, which "restricted" accepts in place of that check since Kubernetes
// 1.35. Root runs in a user namespace with a few capabilities, which is
// "baseline". See docs/adr/0003-root-images.md.
func (r rendering) secure(pod *corev1.PodSpec) {
	pod.SecurityContext = &corev1.PodSecurityContext{
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	container := &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	pod.Containers[0].SecurityContext = container

	switch r.user {
	case v1alpha1.UserNamed, v1alpha1.UserRoot:
		if r.config.RootImages == RootInUserNamespace {
			pod.HostUsers = new(false)
		}
		if r.user == v1alpha1.UserRoot {
			container.Capabilities.Add = rootCapabilities
		}
	default:
		pod.SecurityContext.RunAsNonRoot = new(true)
	}
	if r.app.Spec.Port < 1024 {
		// Of the pod's own network only; a safe sysctl in every profile.
		pod.SecurityContext.Sysctls = []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}}
	}
}

// canonical returns JSON that is equal for equal values: the fields of structs
// come in their order and the keys of maps sorted.
func canonical(v any) ([]byte, error) { return json.Marshal(v) }
