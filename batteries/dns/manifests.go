package dns

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

// serverPort is where the server listens: on the pods as on the Service, since
// NetworkPolicies speak of the ports of pods, and everybody's allow 53.
const serverPort = 53

// conventional are the labels by which other people's tools find a cluster's
// DNS, whoever provides it.
var conventional = map[string]string{"k8s-app": "kube-dns"}

func manifests(s battery.Site) ([]kube.Object, error) {
	cfg := s.Config.(Config)
	if err := check(s, cfg); err != nil {
		return nil, fmt.Errorf("settings of battery \"dns\": %w", err)
	}
	objs := []kube.Object{deployment(), service(s), policy()}
	if s.DataDir != "" {
		objs = append(objs, alias(s))
	}
	return append(objs, rights(cfg)...), nil
}

func deployment() *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "dns"},
		Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: conventional},
			Spec: corev1.PodSpec{
				// The machine's resolv.conf instead of one that names this server.
				DNSPolicy: corev1.DNSDefault,
				// Of the pod's own network only: a safe sysctl, which takes neither
				// root nor a capability.
				SecurityContext: &corev1.PodSecurityContext{
					Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}},
				},
				Containers: []corev1.Container{{
					Name: "dns",
					Ports: []corev1.ContainerPort{
						{Name: "dns", ContainerPort: serverPort, Protocol: corev1.ProtocolUDP},
						{Name: "dns-tcp", ContainerPort: serverPort, Protocol: corev1.ProtocolTCP},
					},
					Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
						corev1.ResourceCPU:    resource.MustParse("50m"),
						corev1.ResourceMemory: resource.MustParse("48Mi"),
					}},
				}},
			},
		}},
	}
}

// service is the address every pod asks. Where Emerald booted the cluster, the
// kubelets know it in advance; elsewhere the cluster chooses one.
func service(s battery.Site) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "kube-dns", Labels: map[string]string{
			"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS",
		}},
		Spec: corev1.ServiceSpec{
			Selector: battery.Selector("dns"),
			Ports: []corev1.ServicePort{
				{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP, TargetPort: intstr.FromString("dns")},
				{Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("dns-tcp")},
				// The conventional port of CoreDNS's metrics.
				{Name: "metrics", Port: 9153, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(battery.ReadyPort)},
			},
		},
	}
	if s.DataDir != "" {
		svc.Spec.ClusterIP = s.DNSAddress
	}
	return svc
}

// alias makes the name that other people's charts write into their
// configuration, kube-dns.kube-system.svc, lead here. On a cluster that Emerald
// did not boot that Service is somebody else's.
func alias(s battery.Site) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "kube-dns", Namespace: metav1.NamespaceSystem, Labels: map[string]string{"k8s-app": "kube-dns"}},
		Spec: corev1.ServiceSpec{
			Type:         corev1.ServiceTypeExternalName,
			ExternalName: fmt.Sprintf("kube-dns.%s.svc.%s", s.Namespace, s.ClusterDomain),
		},
	}
}

// policy lets everyone ask and nobody do anything else. What goes out is not
// limited: the resolvers may be anywhere, and so may the API server.
func policy() *networkingv1.NetworkPolicy {
	port := func(p corev1.Protocol, n int32) networkingv1.NetworkPolicyPort {
		number := intstr.FromInt32(n)
		return networkingv1.NetworkPolicyPort{Protocol: &p, Port: &number}
	}
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "dns"},
		Spec: networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{
				port(corev1.ProtocolUDP, serverPort), port(corev1.ProtocolTCP, serverPort),
				port(corev1.ProtocolTCP, battery.ReadyPort),
			}}},
		},
	}
}

// rights lets the server watch what its names are made of, and the one
// ConfigMap in which the machine tells its resolvers.
func rights(cfg Config) []kube.Object {
	watch := []string{"list", "watch"}
	core := []string{"namespaces", "services"}
	if cfg.Pods == PodsVerified {
		core = append(core, "pods")
	}
	account := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: battery.NamespaceOf("dns"), Name: "dns"}
	return []kube.Object{
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "emerald-dns"},
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{""}, Resources: core, Verbs: watch},
				{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: watch},
			},
		},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "emerald-dns"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "emerald-dns"},
			Subjects:   []rbacv1.Subject{account},
		},
		&rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Name: "emerald-dns", Namespace: battery.SystemNamespace},
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{hostSettings}, Verbs: watch},
			},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "emerald-dns", Namespace: battery.SystemNamespace},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "emerald-dns"},
			Subjects:   []rbacv1.Subject{account},
		},
	}
}
