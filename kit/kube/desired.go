package kube

import (
	"bytes"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// Desired returns o as it is sent to the API server to be applied: without the
// status and the empty time stamps that Go types always carry, so that the
// sender comes to own just what it means to own. The kind of o must be set. The
// result shares nothing with o.
func Desired(o Object) (*unstructured.Unstructured, error) {
	u, untyped := o.(*unstructured.Unstructured)
	if untyped {
		u = u.DeepCopy()
	} else {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			return nil, fmt.Errorf("convert %T %q: %w", o, o.GetName(), err)
		}
		u = &unstructured.Unstructured{Object: content}
	}
	delete(u.Object, "status")
	unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
	unstructured.RemoveNestedField(u.Object, "spec", "template", "metadata", "creationTimestamp")
	return u, nil
}

// YAML returns objects as one stream of YAML documents, each as [Desired] gives
// it: what people read and golden files hold.
func YAML(objs []Object) ([]byte, error) {
	var out bytes.Buffer
	for i, o := range objs {
		u, err := Desired(o)
		if err != nil {
			return nil, err
		}
		raw, err := yaml.Marshal(u.Object)
		if err != nil {
			return nil, fmt.Errorf("encode %s %q: %w", u.GetKind(), u.GetName(), err)
		}
		if i > 0 {
			out.WriteString("---\n")
		}
		out.Write(raw)
	}
	return out.Bytes(), nil
}
