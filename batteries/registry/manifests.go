package registry

import (
	"fmt"
	"path"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

// Names and places of what the battery renders.
const (
	name       = "registry"
	serverPort = 5000
	tlsSecret  = "registry-tls"
	tlsDir     = "/etc/registry/tls"
	dataDir    = "/var/lib/registry"

	// AdminAccount is the service account in the battery's namespace that may do
	// everything with every repository. Whoever may make tokens for it is an
	// administrator of the registry.
	AdminAccount = "registry-admin"

	group = "registry.emerald.dev"
)

func manifests(s battery.Site) ([]kube.Object, error) {
	if _, err := s.Config.(Config).read(); err != nil {
		return nil, err
	}
	objs := []kube.Object{namespace(s), deployment(s), service(s), policy(), certificate(s)}
	if s.DataDir == "" {
		objs = append(objs, claim())
	}
	objs = append(objs, routes(s)...)
	objs = append(objs, ownRights()...)
	return append(objs, roles(s)...), nil
}

// namespace admits a path of the machine, which is where the images are kept.
func namespace(s battery.Site) *corev1.Namespace {
	level := "restricted"
	if s.DataDir != "" {
		level = "privileged"
	}
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:   s.Namespace,
		Labels: map[string]string{"pod-security.kubernetes.io/enforce": level},
	}}
}

// deployment runs one process: two would not know of each other's uploads.
func deployment(s battery.Site) *appsv1.Deployment {
	one, grace := int32(1), int64(60)
	data := corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}
	if s.DataDir != "" {
		directory := corev1.HostPathDirectory
		data = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{
			Path: path.Join(s.DataDir, "batteries", name), Type: &directory,
		}}
	}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &one,
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType},
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				// Transfers that are on their way may end.
				TerminationGracePeriodSeconds: &grace,
				Volumes: []corev1.Volume{
					{Name: "data", VolumeSource: data},
					{Name: "tls", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: tlsSecret}}},
				},
				Containers: []corev1.Container{{
					Name:  name,
					Ports: []corev1.ContainerPort{{Name: "https", ContainerPort: serverPort}},
					Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
						corev1.ResourceCPU:    resource.MustParse("20m"),
						corev1.ResourceMemory: resource.MustParse("64Mi"),
					}},
					VolumeMounts: []corev1.VolumeMount{
						{Name: "data", MountPath: dataDir},
						{Name: "tls", MountPath: tlsDir, ReadOnly: true},
					},
				}},
			}},
		},
	}
}

// claim holds the images where Emerald did not boot the machines.
func claim() *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceStorage: resource.MustParse("100Gi"),
			}},
		},
	}
}

// service has an address that the container runtime of every machine knows.
func service(s battery.Site) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Selector: battery.Selector(name),
			Ports: []corev1.ServicePort{
				{Name: "https", Port: 443, TargetPort: intstr.FromString("https")},
				{Name: "metrics", Port: battery.ReadyPort, TargetPort: intstr.FromInt32(battery.ReadyPort)},
			},
		},
	}
	if s.DataDir != "" {
		svc.Spec.ClusterIP = s.RegistryAddress
	}
	return svc
}

// policy lets everyone in, to be asked for a password. What goes out is not
// limited: other registries and the proxies on the way to them may be anywhere,
// and so may the API server.
func policy() *networkingv1.NetworkPolicy {
	tcp := corev1.ProtocolTCP
	port := func(n int32) networkingv1.NetworkPolicyPort {
		number := intstr.FromInt32(n)
		return networkingv1.NetworkPolicyPort{Protocol: &tcp, Port: &number}
	}
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: battery.Selector(name)},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{
				port(serverPort), port(battery.ReadyPort),
			}}},
		},
	}
}

func certificate(s battery.Site) *certmanagerv1.Certificate {
	c := &certmanagerv1.Certificate{
		TypeMeta:   metav1.TypeMeta{APIVersion: certmanagerv1.SchemeGroupVersion.String(), Kind: certmanagerv1.CertificateKind},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certmanagerv1.CertificateSpec{
			SecretName: tlsSecret,
			DNSNames: []string{
				Audience(s.Domain),
				fmt.Sprintf("%s.%s.svc", name, s.Namespace),
				fmt.Sprintf("%s.%s.svc.%s", name, s.Namespace, s.ClusterDomain),
			},
			Duration:    &metav1.Duration{Duration: 30 * 24 * time.Hour},
			RenewBefore: &metav1.Duration{Duration: 10 * 24 * time.Hour},
			PrivateKey:  &certmanagerv1.CertificatePrivateKey{Algorithm: certmanagerv1.ECDSAKeyAlgorithm, Size: 256, RotationPolicy: certmanagerv1.RotationPolicyAlways},
			Usages:      []certmanagerv1.KeyUsage{certmanagerv1.UsageServerAuth, certmanagerv1.UsageDigitalSignature},
			IssuerRef:   cmmeta.IssuerReference{Name: "emerald-ca", Kind: certmanagerv1.ClusterIssuerKind, Group: certmanagerv1.SchemeGroupVersion.Group},
		},
	}
	if s.DataDir != "" {
		c.Spec.IPAddresses = []string{s.RegistryAddress} // by which the machines know it
	}
	return c
}

// routes lead people to the registry through the gateway, encrypted all the way.
func routes(s battery.Site) []kube.Object {
	port := gatewayv1.PortNumber(443)
	section := gatewayv1.SectionName("https")
	gatewayNamespace := gatewayv1.Namespace("emerald-gateway")
	// Large layers take long; the registry itself gives up on those who stall.
	unlimited := gatewayv1.Duration("0s")
	api := func(kind string) metav1.TypeMeta {
		return metav1.TypeMeta{APIVersion: gatewayv1.GroupVersion.String(), Kind: kind}
	}
	return []kube.Object{
		&gatewayv1.HTTPRoute{
			TypeMeta:   api("HTTPRoute"),
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: gatewayv1.HTTPRouteSpec{
				CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{
					Name: "emerald", Namespace: &gatewayNamespace, SectionName: &section,
				}}},
				Hostnames: []gatewayv1.Hostname{gatewayv1.Hostname(Audience(s.Domain))},
				Rules: []gatewayv1.HTTPRouteRule{{
					Timeouts: &gatewayv1.HTTPRouteTimeouts{Request: &unlimited},
					BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{
						BackendObjectReference: gatewayv1.BackendObjectReference{Name: name, Port: &port},
					}}},
				}},
			},
		},
		&gatewayv1.BackendTLSPolicy{
			TypeMeta:   api("BackendTLSPolicy"),
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: gatewayv1.BackendTLSPolicySpec{
				TargetRefs: []gatewayv1.LocalPolicyTargetReferenceWithSectionName{{
					LocalPolicyTargetReference: gatewayv1.LocalPolicyTargetReference{Kind: "Service", Name: name},
				}},
				Validation: gatewayv1.BackendTLSPolicyValidation{
					Hostname: gatewayv1.PreciseHostname(Audience(s.Domain)),
					// The certificate's own Secret carries its authority.
					CACertificateRefs: []gatewayv1.LocalObjectReference{{Kind: "Secret", Name: tlsSecret}},
				},
			},
		},
	}
}

// ownRights lets the registry ask who a caller is and what it may do, and read
// how this machine reaches other registries.
func ownRights() []kube.Object {
	account := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: battery.NamespaceOf(name), Name: name}
	return []kube.Object{
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "emerald-registry"},
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}, Verbs: []string{"create"}},
				{APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"subjectaccessreviews"}, Verbs: []string{"create"}},
			},
		},
		binding("emerald-registry", "emerald-registry", account),
		&rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Name: "emerald-registry", Namespace: battery.SystemNamespace},
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{hostConfigMap}, Verbs: []string{"get"}},
			},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "emerald-registry", Namespace: battery.SystemNamespace},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "emerald-registry"},
			Subjects:   []rbacv1.Subject{account},
		},
	}
}

// roles are what others may be given: parts of the standard roles view and edit,
// the administrator, and the kubelets' right to ask for tokens that the registry
// accepts, on behalf of the pods they pull for.
func roles(s battery.Site) []kube.Object {
	aggregated := func(to string) map[string]string {
		return map[string]string{"rbac.authorization.k8s.io/aggregate-to-" + to: "true"}
	}
	return []kube.Object{
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "emerald-registry-pull", Labels: aggregated("view")},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{group}, Resources: []string{"repositories"}, Verbs: []string{"get", "list"}}},
		},
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "emerald-registry-push", Labels: aggregated("edit")},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{group}, Resources: []string{"repositories"}, Verbs: []string{"get", "list", "update", "delete"}}},
		},
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "emerald-registry-admin"},
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{group}, Resources: []string{"repositories"}, Verbs: []string{"get", "list", "update", "delete", "deletecollection"}},
				{APIGroups: []string{group}, Resources: []string{"upstreams"}, Verbs: []string{"update", "delete"}},
			},
		},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: AdminAccount}},
		binding("emerald-registry-admin", "emerald-registry-admin",
			rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: battery.NamespaceOf(name), Name: AdminAccount}),
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "emerald-registry-kubelet"},
			Rules: []rbacv1.PolicyRule{{
				APIGroups: []string{""}, Resources: []string{Audience(s.Domain)}, Verbs: []string{"request-serviceaccounts-token-audience"},
			}},
		},
		binding("emerald-registry-kubelet", "emerald-registry-kubelet",
			rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:nodes"}),
	}
}

func binding(name, role string, to rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{to},
	}
}
