package gateway

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/control"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

// rights let the gateway read what it serves and write the statuses of it. The
// README says why it can read Secrets.
func rights(s battery.Site) []kube.Object {
	watch, read := []string{"list", "watch"}, []string{"get", "list", "watch"}
	core, gateways := []string{""}, []string{gatewayv1.GroupName}
	account := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: s.Namespace, Name: "gateway"}
	meta := metav1.ObjectMeta{Name: "emerald-gateway"}
	local := metav1.ObjectMeta{Name: "gateway", Namespace: s.Namespace}
	return []kube.Object{
		&rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
			{APIGroups: gateways, Resources: []string{"gatewayclasses", "gateways", "listenersets", "httproutes", "grpcroutes", "referencegrants", "backendtlspolicies"}, Verbs: watch},
			{APIGroups: gateways, Resources: []string{"gatewayclasses/status", "gateways/status", "listenersets/status", "httproutes/status", "grpcroutes/status", "backendtlspolicies/status"}, Verbs: []string{"update"}},
			{APIGroups: core, Resources: []string{"services", "namespaces", "nodes"}, Verbs: watch},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: watch},
			{APIGroups: core, Resources: []string{"secrets", "configmaps"}, Verbs: read},
			{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"clustertrustbundles"}, Verbs: []string{"get"}},
		}},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: meta, Subjects: []rbacv1.Subject{account},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "emerald-gateway"},
		},
		&rbacv1.Role{ObjectMeta: local, Rules: []rbacv1.PolicyRule{
			{APIGroups: core, Resources: []string{"services"}, Verbs: []string{"get", "create", "update", "delete"}},
			{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"create"}},
			{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{control.Lease}, Verbs: []string{"get", "update"}},
		}},
		&rbacv1.RoleBinding{
			ObjectMeta: local, Subjects: []rbacv1.Subject{account},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "gateway"},
		},
	}
}
