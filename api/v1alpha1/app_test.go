package v1alpha1_test

import (
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	apiservervalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// internalApp returns the definition of App in the form the API server works
// with.
func internalApp(t *testing.T) *apiextensions.CustomResourceDefinition {
	t.Helper()
	crd, err := v1alpha1.CRD("apps")
	if err != nil {
		t.Fatal(err)
	}
	apiextensionsv1.SetDefaults_CustomResourceDefinition(crd)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&crd.Spec)
	out := &apiextensions.CustomResourceDefinition{}
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(crd, out, nil); err != nil {
		t.Fatal(err)
	}
	return out
}

// The API server refuses definitions whose rules do not compile or may cost too
// much; better to learn it here.
func TestAppDefinitionIsAccepted(t *testing.T) {
	crd := internalApp(t)
	crd.Status.StoredVersions = []string{"v1alpha1"}
	if errs := validation.ValidateCustomResourceDefinition(t.Context(), crd); len(errs) > 0 {
		t.Fatalf("the API server would refuse the definition: %v", errs.ToAggregate())
	}
}

func TestUnknownDefinition(t *testing.T) {
	if _, err := v1alpha1.CRD("nothings"); err == nil {
		t.Fatal("a definition that does not exist was found")
	}
}

func TestAppValidation(t *testing.T) {
	crd := internalApp(t)
	schema := crd.Spec.Validation
	if schema == nil {
		schema = crd.Spec.Versions[0].Schema
	}
	structural, err := structuralschema.NewStructural(schema.OpenAPIV3Schema)
	if err != nil {
		t.Fatal(err)
	}
	byPattern, _, err := apiservervalidation.NewSchemaValidator(schema.OpenAPIV3Schema)
	if err != nil {
		t.Fatal(err)
	}
	byRule := cel.NewValidator(structural, true, celconfig.PerCallLimit)

	tests := map[string]struct {
		app  string
		want string // a part of the refusal; "" accepts
	}{
		"smallest":        {app: "{image: nginx}"},
		"digest and port": {app: "{image: 'registry.emerald.localhost:443/default/web@sha256:ab12', port: 80}"},
		"everything": {app: `
image: web
command: [/web]
args: [--verbose]
env: [{name: A, value: b}, {name: B, valueFrom: {secretKeyRef: {name: s, key: k}}}, {name: C, valueFrom: {configMapKeyRef: {name: c, key: k}}}]
secrets: [{name: web.keys}, {name: tls, path: /etc/tls}]
replicas: 3
resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 128Mi}}
health: {path: '/healthz?full=1', port: 9000}
domains: [www.example.com, xn--bcher-kva.example]`},
		"no image":            {app: "{}", want: "image: Required"},
		"image with a space":  {app: "{image: 'a b'}", want: "image"},
		"port too large":      {app: "{image: a, port: 65536}", want: "port"},
		"port zero":           {app: "{image: a, port: 0}", want: "port"},
		"negative replicas":   {app: "{image: a, replicas: -1}", want: "replicas"},
		"same variable twice": {app: "{image: a, env: [{name: A}, {name: A}]}", want: "Duplicate"},
		"variable with two values": {
			app:  "{image: a, env: [{name: A, value: x, valueFrom: {secretKeyRef: {name: s, key: k}}}]}",
			want: "give either value or valueFrom"},
		"variable from nowhere":   {app: "{image: a, env: [{name: A, valueFrom: {}}]}", want: "give either secretKeyRef or configMapKeyRef"},
		"bad variable name":       {app: "{image: a, env: [{name: 'A=B'}]}", want: "name"},
		"domain in capitals":      {app: "{image: a, domains: [Example.com]}", want: "domains"},
		"wildcard domain":         {app: "{image: a, domains: ['*.example.com']}", want: "domains"},
		"domain with one label":   {app: "{image: a, domains: [example]}", want: "domains"},
		"address as domain":       {app: "{image: a, domains: [10.0.0.1]}", want: "domains"},
		"label of 64":             {app: "{image: a, domains: [" + strings.Repeat("a", 64) + ".com]}", want: "domains"},
		"label of 63":             {app: "{image: a, domains: [" + strings.Repeat("a", 63) + ".com]}"},
		"domain with port":        {app: "{image: a, domains: ['example.com:80']}", want: "domains"},
		"same domain twice":       {app: "{image: a, domains: [a.com, a.com]}", want: "Duplicate"},
		"relative health path":    {app: "{image: a, health: {path: healthz}}", want: "path"},
		"health path with spaces": {app: "{image: a, health: {path: '/a b'}}", want: "path"},
		"secret at the root":      {app: "{image: a, secrets: [{name: s, path: /}]}", want: "path"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var spec map[string]any
			if err := yaml.Unmarshal([]byte(tt.app), &spec); err != nil {
				t.Fatal(err)
			}
			app := map[string]any{
				"apiVersion": "emerald.dev/v1alpha1", "kind": "App",
				"metadata": map[string]any{"name": "web"}, "spec": spec,
			}
			check(t, structural, byPattern, byRule, app, tt.want)
		})
	}

	names := map[string]bool{
		"a": true, "web": true, "2048": true, "a-b": true, strings.Repeat("a", 63): true,
		strings.Repeat("a", 64): false, "-a": false, "a-": false, "a.b": false, "A": false, "a_b": false,
	}
	for name, ok := range names {
		t.Run("name "+name, func(t *testing.T) {
			app := map[string]any{
				"apiVersion": "emerald.dev/v1alpha1", "kind": "App",
				"metadata": map[string]any{"name": name}, "spec": map[string]any{"image": "a"},
			}
			want := ""
			if !ok {
				want = "becomes a label of its host name"
			}
			check(t, structural, byPattern, byRule, app, want)
		})
	}
}

func check(t *testing.T, s *structuralschema.Structural, v apiservervalidation.SchemaValidator, rules *cel.Validator, app map[string]any, want string) {
	t.Helper()
	errs := apiservervalidation.ValidateCustomResource(nil, app, v)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, s, app)...)
	if len(errs) == 0 {
		ruleErrs, _ := rules.Validate(t.Context(), nil, s, app, nil, celconfig.RuntimeCELCostBudget)
		errs = append(errs, ruleErrs...)
	}
	switch {
	case want == "" && len(errs) > 0:
		t.Errorf("refused: %v", errs.ToAggregate())
	case want != "" && len(errs) == 0:
		t.Errorf("accepted; want a refusal that says %q", want)
	case want != "" && !strings.Contains(errs.ToAggregate().Error(), want):
		t.Errorf("refused with %v; want it to say %q", errs.ToAggregate(), want)
	}
}
