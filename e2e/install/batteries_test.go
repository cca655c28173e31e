package install_test

import (
	"context"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

// The batteries of these tests: base serves, things defines a kind and has a
// controller, top needs both and uses that kind, loner stands alone.

type baseConfig struct {
	Services int    `json:"services"`
	Level    string `json:"level,omitempty"`
}

func never(context.Context, battery.Site) error { return nil }

func service(name string) kube.Object {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Selector: battery.Selector("base"), Ports: []corev1.ServicePort{{Port: 80}}},
	}
}

func thing(name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "test.emerald.dev/v1", "kind": "Thing", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"size": int64(1)},
	}}
}

func things() kube.Object {
	preserve := true
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "things.test.emerald.dev"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "test.emerald.dev", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "things", Singular: "thing", Kind: "Thing", ListKind: "ThingList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", XPreserveUnknownFields: &preserve,
				}},
			}},
		},
	}
}

func first() []battery.Battery {
	return []battery.Battery{
		{
			Name: "top", Doc: "Needs the others.", Needs: []string{"base", "things"}, Where: battery.Own, Run: never,
			Manifests: func(battery.Site) ([]kube.Object, error) { return []kube.Object{thing("top")}, nil },
		},
		{
			Name: "base", Doc: "Serves.", Where: battery.Own, Run: never, Config: baseConfig{Services: 2},
			Manifests: func(s battery.Site) ([]kube.Object, error) {
				c := s.Config.(baseConfig)
				if c.Services > 9 {
					return nil, fmt.Errorf("setting `services` is %d: at most 9", c.Services)
				}
				var objs []kube.Object
				for i := range c.Services {
					objs = append(objs, service("base"+strconv.Itoa(i)))
				}
				return objs, nil
			},
		},
		{
			Name: "things", Doc: "Looks after things.", Run: never,
			Manifests: func(battery.Site) ([]kube.Object, error) {
				return []kube.Object{things(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "words"}, Data: map[string]string{"a": "b"}}}, nil
			},
		},
		{
			Name: "loner", Doc: "Needs nobody.",
			Manifests: func(battery.Site) ([]kube.Object, error) {
				return []kube.Object{&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "alone"}}}, nil
			},
		},
	}
}

// second is the list of the next version: without top and loner.
func second() []battery.Battery { return first()[1:3] }
