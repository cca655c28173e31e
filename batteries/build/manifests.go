package build

import (
	"path"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/emerald-platform/emerald/batteries/build/client"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

// Where things are in the pod.
const (
	stateDir   = "/var/lib/build"
	runcPath   = "/opt/emerald/bin/runc"
	secretsDir = "/run/secrets/emerald"
	caFile     = secretsDir + "/ca.crt"
	tokenFile  = secretsDir + "/token"
)

const (
	name = "build"

	// trustBundle publishes the platform's certificate authority.
	trustBundle = "emerald-ca"

	// hostSettings is the ConfigMap of the system namespace in which the
	// machine tells what its administrator configured.
	hostSettings = "host"
)

func manifests(s battery.Site) ([]kube.Object, error) {
	set, err := s.Config.(Config).read()
	if err != nil {
		return nil, err
	}
	objs := []kube.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.Namespace, Labels: map[string]string{
			// For the capabilities that runc needs inside the pod's user
			// namespace; the "baseline" level knows none of those.
			"pod-security.kubernetes.io/enforce": "privileged",
		}}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: client.Account}},
		deployment(s, set), policy(),
	}
	if s.DataDir == "" {
		objs = append(objs, claim(set))
	}
	return append(objs, rights()...), nil
}

// capabilities are what BuildKit and runc need, all of them only within the
// pod's own user namespace: to mount layers, to make namespaces and set up the
// empty network of RUN --network=none, and to hand build steps the set that
// containers have by custom.
var capabilities = []corev1.Capability{
	"SYS_ADMIN", "NET_ADMIN", "SYS_CHROOT", "SETUID", "SETGID", "SETPCAP", "SETFCAP", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID",
	"KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW", "AUDIT_WRITE",
}

// deployment differs from the platform's usual one in what
// docs/adr/0010-build-privileges.md weighs up.
func deployment(s battery.Site, set settings) *appsv1.Deployment {
	one := int32(1)
	root := int64(0)
	unmasked := corev1.UnmaskedProcMount
	volumes, mounts := storage(s)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			// The state belongs to one process: two builders would each need
			// their own, and share no cache.
			Replicas: &one,
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType},
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				HostUsers: ptr(false),
				SecurityContext: &corev1.PodSecurityContext{
					RunAsUser: &root, RunAsGroup: &root, RunAsNonRoot: ptr(false),
					SeccompProfile:  &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined},
					AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined},
				},
				Volumes: volumes,
				Containers: []corev1.Container{{
					Name: name,
					SecurityContext: &corev1.SecurityContext{
						// Build steps run programs such as su and ping.
						AllowPrivilegeEscalation: ptr(true),
						ProcMount:                &unmasked,
						Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: capabilities},
					},
					VolumeMounts: mounts,
					Resources:    resources(set),
				}},
			}},
		},
	}
}

func resources(set settings) corev1.ResourceRequirements {
	r := corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("50m"),
		corev1.ResourceMemory: resource.MustParse("96Mi"),
	}}
	for kind, limit := range map[corev1.ResourceName]*resource.Quantity{corev1.ResourceCPU: set.cpu, corev1.ResourceMemory: set.memory} {
		if limit != nil {
			if r.Limits == nil {
				r.Limits = corev1.ResourceList{}
			}
			r.Limits[kind] = *limit
		}
	}
	return r
}

// storage is the state, runc, what the registry is trusted by and logged in
// with, and a place for runc's own small files.
func storage(s battery.Site) ([]corev1.Volume, []corev1.VolumeMount) {
	directory := corev1.HostPathDirectory
	hour := int64(3600)
	state := corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}
	bin := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	if s.DataDir != "" {
		state = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path.Join(s.DataDir, "batteries", name), Type: &directory}}
		bin = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path.Join(s.DataDir, "bin"), Type: &directory}}
	}
	volumes := []corev1.Volume{
		{Name: "state", VolumeSource: state},
		{Name: "bin", VolumeSource: bin},
		{Name: "run", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
		{Name: "registry", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: ptr(trustBundle), Path: path.Base(caFile)}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
				Audience: client.Registry(s.Domain), ExpirationSeconds: &hour, Path: path.Base(tokenFile),
			}},
		}}}},
	}
	mounts := []corev1.VolumeMount{
		{Name: "state", MountPath: stateDir},
		{Name: "bin", MountPath: path.Dir(runcPath), ReadOnly: true},
		{Name: "run", MountPath: "/run"},
		{Name: "registry", MountPath: secretsDir, ReadOnly: true},
	}
	return volumes, mounts
}

// claim is where the state lives on a cluster that Emerald did not boot.
func claim(set settings) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceStorage: *resource.NewQuantity(set.cacheSize+set.keepFree, resource.BinarySI),
			}},
		},
	}
}

// policy lets nobody connect to the pod but for its health. Builders arrive
// through the kubelet, on the loopback address; what goes out is not limited,
// as build steps download from anywhere.
func policy() *networkingv1.NetworkPolicy {
	tcp, health := corev1.ProtocolTCP, intstr.FromInt32(battery.ReadyPort)
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{
				Ports: []networkingv1.NetworkPolicyPort{{Protocol: &tcp, Port: &health}},
			}},
		},
	}
}

// rights are the builder's own (to check tokens, to read the machine's
// settings, to keep base images in the registry) and, in Role "client", what
// whoever builds needs besides a namespace to push to. Administrators have it;
// others are bound to it.
func rights() []kube.Object {
	account := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: battery.NamespaceOf(name), Name: name}
	const global = "emerald-" + name
	return []kube.Object{
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: global},
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}, Verbs: []string{"create"}},
				{APIGroups: []string{"registry.emerald.dev"}, Resources: []string{"upstreams"}, ResourceNames: []string{"docker.io", "gcr.io"}, Verbs: []string{"update"}},
			},
		},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: global},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: global},
			Subjects:   []rbacv1.Subject{account},
		},
		&rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Name: global, Namespace: battery.SystemNamespace},
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{hostSettings}, Verbs: []string{"list", "watch"}},
			},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: global, Namespace: battery.SystemNamespace},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: global},
			Subjects:   []rbacv1.Subject{account},
		},
		&rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Name: client.Account},
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"site"}, Verbs: []string{"get"}},
				{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}},
				{APIGroups: []string{""}, Resources: []string{"pods/portforward"}, Verbs: []string{"get", "create"}},
				{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, ResourceNames: []string{client.Account}, Verbs: []string{"create"}},
			},
		},
	}
}

func ptr[T any](v T) *T { return &v }
