package client

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

func specOf(t *testing.T, text string) v1alpha1.AppSpec {
	t.Helper()
	var spec v1alpha1.AppSpec
	if err := yaml.UnmarshalStrict([]byte(text), &spec); err != nil {
		t.Fatal(err)
	}
	return spec
}

func TestChange(t *testing.T) {
	quantity := func(s string) *resource.Quantity { q := resource.MustParse(s); return &q }
	tests := map[string]struct {
		reason  string
		present string // "" is a new App
		auto    bool   // nobody chose the present port
		change  Change
		own     string
		want    string
		touched []string
		port    bool // nobody chose the port afterwards
		err     error
	}{
		"new": {
			reason: "a new App has what was said and no more",
			change: Change{Image: "web:1"}, want: "{image: 'web:1'}", touched: []string{"image"}, port: true},
		"new with the image's port": {
			reason: "what the image exposes is better than a guess",
			change: Change{Image: "web:1", ImagePort: 80}, want: "{image: 'web:1', port: 80}", touched: []string{"image", "port"}, port: true},
		"new with a port": {
			reason: "what the user says is better than what the image says",
			change: Change{Image: "web:1", ImagePort: 80, Port: 90}, want: "{image: 'web:1', port: 90}", touched: []string{"image", "port"}},
		"no image": {reason: "there is nothing to run", change: Change{}, err: ErrChange},
		"update": {
			reason:  "what is not mentioned stays",
			present: "{image: 'web:1', port: 90, env: [{name: A, value: a}], domains: [a.com]}",
			change:  Change{Image: "web:2", ImagePort: 80},
			want:    "{image: 'web:2', port: 90, env: [{name: A, value: a}], domains: [a.com]}", touched: []string{"image"}},
		"update that follows the image": {
			reason:  "a port nobody chose is the image's business",
			present: "{image: 'web:1', port: 8080}", auto: true,
			change: Change{Image: "web:2", ImagePort: 80},
			want:   "{image: 'web:2', port: 80}", touched: []string{"image", "port"}, port: true},
		"variables": {
			reason:  "they are set, replaced in place and removed",
			present: "{image: a, port: 1, env: [{name: A, value: a}, {name: B, valueFrom: {secretKeyRef: {name: s, key: k}}}, {name: C, value: c}]}",
			change:  Change{Env: map[string]*string{"ZZ": new("z"), "B": new("b"), "C": nil, "YY": new(""), "X": nil}},
			want:    "{image: a, port: 1, env: [{name: A, value: a}, {name: B, value: b}, {name: YY}, {name: ZZ, value: z}]}", touched: []string{"env"}},
		"first secret": {
			reason:  "the App's own Secret joins those it uses",
			present: "{image: a, port: 1, secrets: [{name: other, path: /x}]}", own: "web.secrets-1",
			want: "{image: a, port: 1, secrets: [{name: other, path: /x}, {name: web.secrets-1}]}", touched: []string{"secrets"}},
		"another secret": {
			reason:  "the new own Secret takes the old one's place",
			present: "{image: a, port: 1, secrets: [{name: web.secrets-1}]}", own: "web.secrets-2",
			want: "{image: a, port: 1, secrets: [{name: web.secrets-2}]}", touched: []string{"secrets"}},
		"last secret gone": {
			reason:  "an empty Secret is none",
			present: "{image: a, port: 1, secrets: [{name: web.secrets-1}]}",
			want:    "{image: a, port: 1}", touched: []string{"secrets"}},
		"domains": {
			reason:  "they are added once and removed",
			present: "{image: a, port: 1, domains: [a.com, b.com]}",
			change:  Change{Domains: []v1alpha1.Domain{"a.com", "c.com"}, DropDomains: []v1alpha1.Domain{"b.com"}},
			want:    "{image: a, port: 1, domains: [a.com, c.com]}", touched: []string{"domains"}},
		"domain it has not": {
			reason: "a slip of the pen is not done silently", present: "{image: a, port: 1}",
			change: Change{DropDomains: []v1alpha1.Domain{"b.com"}}, err: ErrChange},
		"resources": {
			reason:  "memory is promised and the limit, CPU only promised",
			present: "{image: a, port: 1, resources: {limits: {cpu: 100m}}}",
			change:  Change{Memory: quantity("1Gi"), CPU: quantity("200m")},
			want:    "{image: a, port: 1, resources: {requests: {cpu: 200m, memory: 1Gi}, limits: {cpu: 200m, memory: 1Gi}}}", touched: []string{"resources"}},
		"manifest": {
			reason:  "the folder's manifest replaces all but the image and the secrets given by hand",
			present: "{image: 'web:1', port: 90, env: [{name: A}], secrets: [{name: web.secrets-1}]}", own: "web.secrets-1",
			change: Change{Image: "web:2", Whole: &v1alpha1.AppSpec{Replicas: new(int32(2))}, Env: map[string]*string{"B": new("b")}},
			want:   "{image: 'web:2', replicas: 2, env: [{name: B, value: b}], secrets: [{name: web.secrets-1}]}", touched: specFields, port: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			app := &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{Name: "web"}}
			if tt.present != "" {
				app.UID, app.Spec = "1", specOf(t, tt.present)
			}
			if tt.auto {
				app.Annotations = map[string]string{v1alpha1.AnnotationPort: autoPort}
			}
			before := app.DeepCopy()
			got, err := tt.change.apply(app, tt.own)
			if !errors.Is(err, tt.err) {
				t.Fatalf("%s: got error %v, want %v", tt.reason, err, tt.err)
			}
			if diff := cmp.Diff(before, app); diff != "" {
				t.Errorf("the App that was there changed: %s", diff)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(asJSON(t, specOf(t, tt.want)), asJSON(t, got.spec)); diff != "" {
				t.Errorf("%s, -want +got:\n%s", tt.reason, diff)
			}
			if diff := cmp.Diff(tt.touched, got.touched); diff != "" {
				t.Errorf("%s: touched, -want +got:\n%s", tt.reason, diff)
			}
			if got.autoPort != tt.port {
				t.Errorf("%s: nobody chose the port: %v, want %v", tt.reason, got.autoPort, tt.port)
			}
		})
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// What another tool manages is not sent, unless the user spoke about it.
func TestAppliedLeavesOthersAlone(t *testing.T) {
	app := &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{
		Name: "web", Namespace: "default", UID: "1",
		ManagedFields: []metav1.ManagedFieldsEntry{
			{Manager: Manager, Operation: "Apply", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:image":{},"f:port":{}}}`)},
			{Manager: "kubectl", Operation: "Update", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:replicas":{}}}`)},
			{Manager: Manager, Operation: "Apply", Subresource: "status", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:args":{}}}`)},
		},
	}}
	spec := specOf(t, "{image: a, port: 80, replicas: 3, args: [x], domains: [a.com]}")
	tests := map[string]struct {
		uid     string
		touched []string
		want    []string
	}{
		"owned":             {"1", nil, []string{"image", "port"}},
		"owned and touched": {"1", []string{"domains"}, []string{"domains", "image", "port"}},
		"new":               {"", nil, []string{"args", "domains", "image", "port", "replicas"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			app := app.DeepCopy()
			if tt.uid == "" {
				app.UID, app.ManagedFields = "", nil
			}
			u, err := applied(app, outcome{spec: spec, touched: tt.touched})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range specFields {
				if _, ok := u.Object["spec"].(map[string]any)[f]; ok {
					got = append(got, f)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("sent, -want +got:\n%s", diff)
			}
		})
	}
}

// specFields must name every field that there is.
func TestSpecFields(t *testing.T) {
	full := v1alpha1.AppSpec{
		Image: "a", Command: []string{"a"}, Args: []string{"a"}, Port: 1, Env: []v1alpha1.EnvVar{{}},
		Secrets: []v1alpha1.SecretUse{{}}, Replicas: new(int32(1)), Health: &v1alpha1.Health{}, Domains: []v1alpha1.Domain{"a"},
		Resources: v1alpha1.AppResources{Limits: corev1.ResourceList{"cpu": {}}},
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(asJSON(t, full)), &fields); err != nil {
		t.Fatal(err)
	}
	for _, f := range specFields {
		delete(fields, f)
	}
	if len(fields) > 0 {
		t.Errorf("specFields lacks %v", fields)
	}
}

func TestPick(t *testing.T) {
	app := &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{Name: "web"}}
	history := []Revision{{Number: 1, Healthy: true}, {Number: 2, Healthy: true}, {Number: 3}, {Number: 4, Healthy: true, Current: true}}
	for number, want := range map[int64]int64{0: 2, 1: 1, 3: 3, 4: -1, 9: -1} {
		got, err := pick(app, history, number)
		if (want < 0) != (err != nil) || (err == nil && got.Number != want) {
			t.Errorf("--to %d: got %d, %v; want %d", number, got.Number, err, want)
		}
	}
	if _, err := pick(app, []Revision{{Number: 1, Current: true, Healthy: true}}, 0); err == nil {
		t.Error("there is nothing to return to, and no error")
	}
}
