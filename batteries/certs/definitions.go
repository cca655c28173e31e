package certs

import (
	"embed"
	"fmt"
	"io/fs"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/emerald-platform/emerald/kit/kube"
)

// crds are the definitions of cert-manager's API, made from its types by
// tools/generate.sh.
//
//go:embed crds/*.yaml
var crds embed.FS

// definitions returns the CustomResourceDefinitions, in the order of their
// files.
func definitions() ([]kube.Object, error) {
	files, err := fs.Glob(crds, "crds/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list the definitions: %w", err)
	}
	var out []kube.Object
	for _, file := range files {
		raw, err := crds.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read definition %q: %w", file, err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(raw, &crd); err != nil {
			return nil, fmt.Errorf("read definition %q: %w", file, err)
		}
		out = append(out, &crd)
	}
	return out, nil
}
