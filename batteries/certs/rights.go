package certs

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

// acmeGroup is the API group of cert-manager's ACME orders and challenges.
const acmeGroup = "acme.cert-manager.io"

// Verbs that go together.
var (
	reads   = []string{"get", "list", "watch"}
	writes  = []string{"update", "patch"}
	updates = []string{"update"}
	makes   = []string{"create", "delete"}
)

func rule(group string, resources []string, verbs ...[]string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: slices.Concat(verbs...)}
}

// workRules are what the controllers do all over the cluster: the union of what
// cert-manager asks for its controllers and its CA injector, but for the Venafi
// issuer and CertificateSigningRequests, which are not built in.
func workRules() []rbacv1.PolicyRule {
	named := rule("certificates.k8s.io", []string{"clustertrustbundles"}, reads, updates)
	named.ResourceNames = []string{AuthorityName}
	return []rbacv1.PolicyRule{
		rule(group, []string{"certificates", "certificaterequests"}, makes, reads, writes),
		rule(group, []string{"issuers", "clusterissuers"}, reads, writes),
		rule(group, []string{"certificates/status", "certificaterequests/status", "issuers/status", "clusterissuers/status"}, writes),
		rule(group, []string{"certificates/finalizers", "certificaterequests/finalizers", "issuers/finalizers", "clusterissuers/finalizers"}, updates),
		// Requests to the issuers of this group are approved by the platform.
		rule(group, []string{"signers"}, []string{"approve"}),
		rule(acmeGroup, []string{"orders", "challenges"}, makes, reads, writes),
		rule(acmeGroup, []string{"orders/status", "challenges/status"}, writes),
		rule(acmeGroup, []string{"orders/finalizers", "challenges/finalizers"}, updates),
		// The certificates' own, and the credentials that issuers name.
		rule("", []string{"secrets"}, makes, reads, writes),
		rule("", []string{"events"}, []string{"create", "patch"}),
		// Whoever answers for a challenge, and the way there.
		rule("", []string{"pods", "services"}, makes, reads),
		rule("networking.k8s.io", []string{"ingresses"}, makes, updates, reads),
		rule("networking.k8s.io", []string{"ingresses/finalizers"}, updates),
		rule("gateway.networking.k8s.io", []string{"httproutes"}, makes, updates, reads),
		rule("gateway.networking.k8s.io", []string{"gateways", "listenersets"}, reads),
		rule("gateway.networking.k8s.io", []string{"gateways/finalizers", "httproutes/finalizers", "listenersets/finalizers"}, updates),
		// Where CA bundles are injected.
		rule("admissionregistration.k8s.io", []string{"validatingwebhookconfigurations", "mutatingwebhookconfigurations"}, reads, writes),
		rule("apiregistration.k8s.io", []string{"apiservices"}, reads, writes),
		rule("apiextensions.k8s.io", []string{"customresourcedefinitions"}, reads, writes),
		// The platform's own bundle.
		rule("certificates.k8s.io", []string{"clustertrustbundles"}, []string{"create"}),
		named,
	}
}

// rights binds the account of the battery to what it does, and gives people what
// the roles view, edit and admin mean for certificates.
func rights() []kube.Object {
	const name = "emerald-certs"
	return []kube.Object{
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: workRules()},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: battery.NamespaceOf("certs"), Name: "certs"}},
		},
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: name + "-view", Labels: aggregatedTo("view", "edit", "admin")},
			Rules: []rbacv1.PolicyRule{
				rule(group, []string{"certificates", "certificaterequests", "issuers"}, reads),
				rule(acmeGroup, []string{"challenges", "orders"}, reads),
			},
		},
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: name + "-edit", Labels: aggregatedTo("edit", "admin")},
			Rules: []rbacv1.PolicyRule{
				rule(group, []string{"certificates", "certificaterequests", "issuers"}, makes, writes, []string{"deletecollection"}),
				// To renew at once.
				rule(group, []string{"certificates/status"}, updates),
				// Making or changing one of these could send an issuer's
				// credentials elsewhere: people may only get rid of them.
				rule(acmeGroup, []string{"challenges"}, writes, []string{"delete", "deletecollection"}),
				rule(acmeGroup, []string{"orders"}, []string{"delete", "deletecollection"}),
			},
		},
	}
}

// aggregatedTo makes a role part of the cluster's roles of these names.
func aggregatedTo(roles ...string) map[string]string {
	out := map[string]string{}
	for _, r := range roles {
		out["rbac.authorization.k8s.io/aggregate-to-"+r] = "true"
	}
	return out
}
