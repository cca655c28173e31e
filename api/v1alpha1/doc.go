// Package v1alpha1 holds the few types that Emerald adds to the Kubernetes API,
// group emerald.dev, and the CustomResourceDefinitions generated from them.
//
// It promises that every object these types accept is one the platform can act
// on: what a field may hold is checked by the API server, from the markers and
// CEL rules written next to the field. It refuses behaviour: no method here
// does more than copy or describe.
//
// Invariant: a type exists here only where no standard of the ecosystem does.
//
// +kubebuilder:object:generate=true
// +groupName=emerald.dev
package v1alpha1

import (
	"embed"
	"fmt"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// Group is the API group of every type in this package.
const Group = "emerald.dev"

// GroupVersion is the group and version of every type in this package.
var GroupVersion = schema.GroupVersion{Group: Group, Version: "v1alpha1"}

// AddToScheme teaches s the types of this package. Callers do so once for each
// scheme they build; the error is always nil and is there for the signature
// that API machinery expects.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&App{}, &AppList{},
		&Platform{}, &PlatformList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}

//go:embed crd/*.yaml
var crds embed.FS

// CRD returns the CustomResourceDefinition of the resource with the given
// plural name, for example "apps", as `make generate` wrote it. Each caller
// gets a copy of its own. An unknown name is an error.
func CRD(plural string) (*apiextensionsv1.CustomResourceDefinition, error) {
	file := "crd/" + Group + "_" + plural + ".yaml"
	raw, err := crds.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("find the definition of %s.%s: %w", plural, Group, err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(raw, crd); err != nil {
		return nil, fmt.Errorf("decode %s: %w", file, err)
	}
	return crd, nil
}
