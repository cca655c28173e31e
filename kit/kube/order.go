package kube

import "slices"

// applyOrder ranks the kinds that others depend on; every other kind comes
// after them in the order it was rendered.
var applyOrder = []string{
	"Namespace", "CustomResourceDefinition", "PriorityClass", "ServiceAccount", "ClusterRole", "Role",
	"ClusterRoleBinding", "RoleBinding", "ConfigMap", "Secret", "Service",
}

// clusterScoped lists the kinds of Kubernetes that live in no namespace, and
// those of the platform's own and its batteries' APIs.
var clusterScoped = []string{
	"Namespace", "CustomResourceDefinition", "PriorityClass", "ClusterRole", "ClusterRoleBinding",
	"StorageClass", "CSIDriver", "VolumeSnapshotClass", "RuntimeClass", "IngressClass", "APIService",
	"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
	"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding",
	"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration",
	"ClusterTrustBundle", "PersistentVolume", "GatewayClass", "ClusterIssuer", "Platform",
}

// Namespaced tells whether objects of o's kind live in a namespace. The kind
// must be set. A kind it does not know is taken to be namespaced.
func Namespaced(o Object) bool {
	return !slices.Contains(clusterScoped, o.GetObjectKind().GroupVersionKind().Kind)
}

// SortForApply orders objects so that each comes after what it depends on,
// and otherwise keeps their order. Their kinds must be set.
func SortForApply(objs []Object) {
	slices.SortStableFunc(objs, func(a, b Object) int { return rank(a) - rank(b) })
}

func rank(o Object) int {
	if i := slices.Index(applyOrder, o.GetObjectKind().GroupVersionKind().Kind); i >= 0 {
		return i
	}
	return len(applyOrder)
}
