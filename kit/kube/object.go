// Package kube holds the few words the whole code base shares about objects of
// the Kubernetes API. It promises to hide nothing: everything here is a name or
// a shortcut for a type of the API machinery.
package kube

import (
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Object is any object of the Kubernetes API: typed, or
// *unstructured.Unstructured where no Go type exists. Its kind and apiVersion
// may be left empty when its type is known to [Scheme].
type Object = client.Object
