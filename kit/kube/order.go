package kube

import (
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

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
	"StorageClass", "CSIDriver", "VolumeSnapshotClass", "VolumeAttributesClass", "RuntimeClass", "IngressClass",
	"APIService", "DeviceClass", "FlowSchema", "PriorityLevelConfiguration", "ServiceCIDR", "IPAddress",
	"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
	"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding",
	"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration",
	"ClusterTrustBundle", "ClusterNetworkPolicy", "PersistentVolume", "GatewayClass", "ClusterIssuer", "Platform",
}

// Namespaced tells whether objects of o's kind live in a namespace. The kind
// must be set. A kind it does not know is taken to be namespaced, unless one of
// the definitions among others says that it is not.
func Namespaced(o Object, others ...Object) bool {
	gvk := o.GetObjectKind().GroupVersionKind()
	for _, other := range others {
		group, kind, scope := definition(other)
		if group == gvk.Group && kind == gvk.Kind && scope != "" {
			return scope == string(apiextensionsv1.NamespaceScoped)
		}
	}
	return !slices.Contains(clusterScoped, gvk.Kind)
}

// definition returns what kind a CustomResourceDefinition, typed or not,
// defines, and its scope. All are empty for another object.
func definition(o Object) (group, kind, scope string) {
	switch crd := o.(type) {
	case *apiextensionsv1.CustomResourceDefinition:
		return crd.Spec.Group, crd.Spec.Names.Kind, string(crd.Spec.Scope)
	case *unstructured.Unstructured:
		if crd.GetKind() != "CustomResourceDefinition" {
			return "", "", ""
		}
		group, _, _ = unstructured.NestedString(crd.Object, "spec", "group")
		kind, _, _ = unstructured.NestedString(crd.Object, "spec", "names", "kind")
		scope, _, _ = unstructured.NestedString(crd.Object, "spec", "scope")
	}
	return group, kind, scope
}

// SortForApply orders objects so that each comes after what it depends on,
// and otherwise keeps their order. Their kinds must be set.
func SortForApply(objs []Object) {
	slices.SortStableFunc(objs, func(a, b Object) int { return Rank(kindOf(a)) - Rank(kindOf(b)) })
}

// Basic tells whether objects of o's kind may be applied before anything else
// of the platform works: namespaces, definitions, rights, settings, services.
// The rest are workloads, which start something, and custom resources, which
// somebody must serve.
func Basic(o Object) bool { return Rank(kindOf(o)) < len(applyOrder) }

// Rank returns where objects of a kind come when objects are applied: after
// those of lower rank. They are removed in the opposite order.
func Rank(kind string) int {
	if i := slices.Index(applyOrder, kind); i >= 0 {
		return i
	}
	return len(applyOrder)
}

func kindOf(o Object) string { return o.GetObjectKind().GroupVersionKind().Kind }
