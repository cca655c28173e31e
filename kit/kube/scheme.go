package kube

import (
	"fmt"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// Scheme knows the types of Kubernetes itself and CustomResourceDefinition.
// Batteries with types of their own build a scheme of their own and set the
// kind and apiVersion of what they render.
var Scheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(s))
	utilruntime.Must(apiextensionsv1.AddToScheme(s))
	return s
}()

// SetKind fills in the kind and apiVersion of a typed object, which Go values
// usually leave empty and the API server demands. It returns an error for a
// type that [Scheme] does not know and that names no kind itself.
func SetKind(o Object) error {
	if !o.GetObjectKind().GroupVersionKind().Empty() {
		return nil
	}
	gvk, err := apiutil.GVKForObject(o, Scheme)
	if err != nil {
		return fmt.Errorf("find the kind of %T %q: %w", o, o.GetName(), err)
	}
	o.GetObjectKind().SetGroupVersionKind(gvk)
	return nil
}
