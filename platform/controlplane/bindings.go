package controlplane

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	rbacv1ac "k8s.io/client-go/applyconfigurations/rbac/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/emerald-platform/emerald/platform/pki"
)

// bindings are the few rights that upstream's own bootstrap policy leaves to
// whoever installs Kubernetes.
var bindings = []struct{ name, role, kind, subject string }{
	{"emerald:admins", "cluster-admin", "Group", pki.AdminGroup},
	{"emerald:apiserver-kubelet", "system:kubelet-api-admin", "User", "kube-apiserver-kubelet-client"},
	// A new machine may ask for its first certificate, and gets the one it is
	// entitled to without a human; renewals likewise.
	{"emerald:node-bootstrap", "system:node-bootstrapper", "Group", "system:bootstrappers"},
	{"emerald:node-approve", "system:certificates.k8s.io:certificatesigningrequests:nodeclient", "Group", "system:bootstrappers"},
	{"emerald:node-renew", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", "Group", "system:nodes"},
}

func ensureBindings(ctx context.Context, cfg *rest.Config) error {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("reach the API: %w", err)
	}
	for _, b := range bindings {
		binding := rbacv1ac.ClusterRoleBinding(b.name).
			WithRoleRef(rbacv1ac.RoleRef().WithAPIGroup("rbac.authorization.k8s.io").WithKind("ClusterRole").WithName(b.role)).
			WithSubjects(rbacv1ac.Subject().WithAPIGroup("rbac.authorization.k8s.io").WithKind(b.kind).WithName(b.subject))
		if _, err := client.RbacV1().ClusterRoleBindings().Apply(ctx, binding, metav1.ApplyOptions{FieldManager: "emerald", Force: true}); err != nil {
			return fmt.Errorf("bind %s %q to role %q: %w", b.kind, b.subject, b.role, err)
		}
	}
	return nil
}
