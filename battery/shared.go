package battery

import (
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/emerald-platform/emerald/kit/kube"
)

// Shared renders what belongs to no single battery: the Namespace
// emerald-system, the ConfigMap "site" in it, and the two shared workloads,
// each only when a battery runs in it. configs holds the decoded Config of each
// battery that is on, by name.
//
// A shared workload may read the Platform object, whose status tells it when to
// start which battery, elect its leader, and report conditions on pods of its
// namespace. For all else it impersonates the service account of the battery
// that acts; the Roles for that come with the battery, see [Complete]. Like
// Complete, Shared is pure.
func Shared(on []Battery, configs map[string]any, s Site) ([]kube.Object, error) {
	s.Config = nil
	settings, err := s.Settings()
	if err != nil {
		return nil, err
	}
	settings.Batteries = map[string]json.RawMessage{}
	places := map[Place]int{}
	for _, b := range on {
		if b.Where == Own || b.Run == nil {
			continue
		}
		places[b.Where]++
		raw, err := json.Marshal(configs[b.Name])
		if err != nil {
			return nil, fmt.Errorf("encode the settings of battery %q: %w", b.Name, err)
		}
		settings.Batteries[b.Name] = raw
	}
	file, err := settings.configMap()
	if err != nil {
		return nil, err
	}
	fingerprint, err := settings.Fingerprint()
	if err != nil {
		return nil, err
	}
	objs := []kube.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: SystemNamespace, Labels: map[string]string{podSecurityLabel: "restricted"}}},
		file,
	}
	if places[Controllers] > 0 {
		d := &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Name: ControllersWorkload},
			Spec: appsv1.DeploymentSpec{
				Replicas: &s.Replicas, RevisionHistoryLimit: ptr(int32(2)),
				Selector: &metav1.LabelSelector{MatchLabels: Selector(ControllersWorkload)},
			},
		}
		sharedProcess(ControllersWorkload, "controllers", s.Image, fingerprint).complete(&d.Spec.Template)
		objs = append(append(objs, d, budget(ControllersWorkload)), sharedRights(ControllersWorkload)...)
	}
	if places[EveryNode] > 0 {
		d := &appsv1.DaemonSet{
			ObjectMeta: metav1.ObjectMeta{Name: NodeWorkload},
			Spec:       appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: Selector(NodeWorkload)}},
		}
		p := sharedProcess(NodeWorkload, "node", s.Image, fingerprint)
		p.priority = "system-node-critical"
		p.complete(&d.Spec.Template)
		d.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
		d.Spec.Template.Spec.TopologySpreadConstraints = nil
		objs = append(append(objs, d), sharedRights(NodeWorkload)...)
	}
	if err := finish(objs, SystemBattery, SystemNamespace); err != nil {
		return nil, fmt.Errorf("render the shared workloads: %w", err)
	}
	return objs, nil
}

// sharedProcess is what a shared workload runs. It has started when it answers
// at all: its batteries get ready one after the other.
func sharedProcess(name, arg, image, fingerprint string) process {
	return process{
		name: name, account: name, args: []string{"run", arg}, battery: SystemBattery, startup: "/livez",
		image: image, fingerprint: fingerprint, memory: "96Mi",
	}
}

// sharedRights returns the service account of a shared workload, what it may do
// as itself, and who may reach it.
func sharedRights(name string) []kube.Object {
	meta := metav1.ObjectMeta{Name: name}
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: SystemNamespace, Name: name}}
	lease := []string{coordinationv1.GroupName}
	return []kube.Object{
		&corev1.ServiceAccount{ObjectMeta: meta},
		&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
			// The name of an object that is being created is not known to RBAC.
			{APIGroups: lease, Resources: []string{"leases"}, Verbs: []string{"create"}},
			{APIGroups: lease, Resources: []string{"leases"}, ResourceNames: []string{name}, Verbs: []string{"get", "update"}},
			{APIGroups: []string{""}, Resources: []string{"pods/status"}, Verbs: []string{"patch"}},
		}},
		&rbacv1.RoleBinding{ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name}},
		&rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{"emerald.dev"}, Resources: []string{"platforms"}, ResourceNames: []string{"emerald"}, Verbs: []string{"get", "list", "watch"}},
		}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}},
		&networkingv1.NetworkPolicy{ObjectMeta: meta, Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: Selector(name)},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{
				Ports: []networkingv1.NetworkPolicyPort{{Port: ptr(intstr.FromInt32(ReadyPort))}},
			}},
		}},
	}
}
