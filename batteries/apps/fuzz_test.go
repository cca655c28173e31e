package apps

import (
	"encoding/json"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery/batterytest"
	"github.com/emerald-platform/emerald/kit/kube"
)

// FuzzRender renders whatever can be decoded as an App. The API server refuses
// most of it, but an App that an older version let in is there already.
func FuzzRender(f *testing.F) {
	raw, err := json.Marshal(full())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(raw))
	f.Add("metadata: {name: web}\nspec: {port: -1, replicas: 2, health: {}, domains: [{host: ''}, {host: '*.a'}]}")
	f.Add("spec: {image: 'a@sha256:b', resources: {limits: {memory: 1, cpu: 1e9}, requests: {memory: 2}}, env: [{}], secrets: [{}]}")
	site := batterytest.Site(&Battery)
	f.Fuzz(func(t *testing.T, manifest string) {
		app := &v1alpha1.App{}
		if yaml.Unmarshal([]byte(manifest), app) != nil {
			return
		}
		for _, user := range []v1alpha1.ImageUserKind{v1alpha1.UserNumeric, v1alpha1.UserRoot, ""} {
			objs, err := render(app, user, site)
			if err != nil {
				continue
			}
			for _, o := range objs {
				if o.GetNamespace() != app.Namespace {
					t.Errorf("%T %s is in namespace %q, the App in %q", o, o.GetName(), o.GetNamespace(), app.Namespace)
				}
			}
			if _, err := kube.YAML(objs); err != nil {
				t.Errorf("what it is made of cannot be written: %v", err)
			}
		}
	})
}
