package apps

import (
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

// manifests returns the App's definition, the battery's rights, and what users
// of a namespace may do with Apps.
func manifests(s battery.Site) ([]kube.Object, error) {
	if err := config(s).validate(); err != nil {
		return nil, err
	}
	crd, err := v1alpha1.CRD("apps")
	if err != nil {
		return nil, err
	}
	return []kube.Object{
		crd, controllerRole(), controllerBinding(s.Namespace), userRole("edit", editVerbs), userRole("view", viewVerbs),
		isolation(),
	}, nil
}

// controllerName is the name of the battery's rights.
const controllerName = "emerald-apps"

func controllerRole() kube.Object {
	watch := []string{"get", "list", "watch"}
	manage := []string{"get", "list", "watch", "create", "patch", "delete"}
	rule := func(group string, verbs []string, resources ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: verbs}
	}
	return &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: controllerName},
		Rules: []rbacv1.PolicyRule{
			rule(v1alpha1.Group, watch, "apps"),
			rule(v1alpha1.Group, []string{"patch"}, "apps/status"),
			// Owner references that hold up a deletion ask for this where the
			// admission plugin OwnerReferencesPermissionEnforcement is on.
			rule(v1alpha1.Group, []string{"update"}, "apps/finalizers"),
			rule("", manage, "services", "serviceaccounts"),
			rule("", watch, "pods"),
			rule("apps", manage, "deployments", "controllerrevisions"),
			rule("policy", manage, "poddisruptionbudgets"),
			rule("gateway.networking.k8s.io", manage, "httproutes", "listenersets"),
		},
	}
}

func controllerBinding(namespace string) kube.Object {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: controllerName},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: controllerName},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "apps"}},
	}
}

var (
	viewVerbs = []string{"get", "list", "watch"}
	editVerbs = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}
)

// userRole adds Apps to what Kubernetes' own role of that name allows in a
// namespace.
func userRole(name string, verbs []string) kube.Object {
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{
			Name:   controllerName + "-" + name,
			Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-" + name: "true"},
		},
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{v1alpha1.Group}, Resources: []string{"apps"}, Verbs: verbs}},
	}
	if name == "edit" {
		role.Labels["rbac.authorization.k8s.io/aggregate-to-admin"] = "true"
		role.Rules = append(role.Rules, rbacv1.PolicyRule{
			APIGroups: []string{v1alpha1.Group}, Resources: []string{"apps/scale"}, Verbs: []string{"get", "update", "patch"},
		})
	}
	return role
}

// isolation closes the battery's namespace: no pod of it should ever run, the
// controller lives in the shared process.
func isolation() kube.Object {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "default-deny"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
		},
	}
}
