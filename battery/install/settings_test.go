package install

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

type config struct {
	Servers int `json:"servers"`
}

func never(context.Context, battery.Site) error { return nil }

func list() []battery.Battery {
	return []battery.Battery{
		{Name: "dns", Doc: "Names.", Run: never, Config: config{Servers: 1}},
		{Name: "apps", Doc: "Apps.", Needs: []string{"dns"}, Run: never, Manifests: func(s battery.Site) ([]kube.Object, error) {
			if s.Domain == "bad.example" {
				return nil, errors.New("the domain is bad")
			}
			return nil, nil
		}},
	}
}

func settingsFor(name string, s v1alpha1.BatterySettings) v1alpha1.PlatformSpec {
	return v1alpha1.PlatformSpec{Batteries: map[string]v1alpha1.BatterySettings{name: s}}
}

func raw(s string) *runtime.RawExtension { return &runtime.RawExtension{Raw: []byte(s)} }

func TestDecide(t *testing.T) {
	site := battery.Site{Domain: "emerald.localhost", Image: "i"}
	for name, tc := range map[string]struct {
		spec   v1alpha1.PlatformSpec
		on     map[string]bool
		config any
		domain string
		err    []string
	}{
		"nothing said": {on: map[string]bool{"dns": true, "apps": true}, config: config{Servers: 1}, domain: "emerald.localhost"},
		"a domain and a setting": {
			spec: v1alpha1.PlatformSpec{Domain: "example.org", Batteries: map[string]v1alpha1.BatterySettings{"dns": {Config: raw(`{"servers": 3}`)}}},
			on:   map[string]bool{"dns": true, "apps": true}, config: config{Servers: 3}, domain: "example.org",
		},
		"off": {
			spec: settingsFor("apps", v1alpha1.BatterySettings{Enabled: ptr(false)}),
			on:   map[string]bool{"dns": true, "apps": false}, config: config{Servers: 1}, domain: "emerald.localhost",
		},
		"off though needed": {
			spec: settingsFor("dns", v1alpha1.BatterySettings{Enabled: ptr(false)}),
			err:  []string{`battery "dns" cannot be off: battery "apps" needs it: turn that off, too`},
		},
		"a domain that is none": {
			spec: v1alpha1.PlatformSpec{Domain: "Example_org"},
			err:  []string{`domain "Example_org": a lowercase RFC 1123 subdomain`},
		},
		"all at once": {
			spec: v1alpha1.PlatformSpec{Batteries: map[string]v1alpha1.BatterySettings{
				"dns": {Config: raw(`{"server": 3}`)}, "dsn": {}, "gatway": {}, "apps": {Config: raw(`{"x": 1}`)},
			}},
			err: []string{
				`settings of battery "dns": unknown field "server": there are servers`,
				`settings of battery "apps": it has none: remove them`,
				`there is no battery "dsn": there are apps, dns`, `there is no battery "gatway"`,
			},
		},
		"what only rendering knows": {
			spec: v1alpha1.PlatformSpec{Domain: "bad.example"},
			err:  []string{`render battery "apps": the domain is bad`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := decide(list(), tc.spec, site)
			for _, want := range tc.err {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want %q in it", err, want)
				}
			}
			if len(tc.err) > 0 {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.on, p.on); diff != "" {
				t.Errorf("on (-want +got):\n%s", diff)
			}
			got := p.siteOf(&list()[0])
			want := battery.Site{Domain: tc.domain, Image: "i", Namespace: "emerald-dns", Config: tc.config}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("site (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadPlatform(t *testing.T) {
	const head = "apiVersion: emerald.dev/v1alpha1\nkind: Platform\n"
	for name, tc := range map[string]struct {
		text, err string
		want      v1alpha1.PlatformSpec
	}{
		"the least": {text: head},
		"whole": {
			text: head + "metadata: {name: emerald}\nspec:\n  domain: example.org\n  batteries:\n    dns:\n      config: {servers: 3}\n",
			want: v1alpha1.PlatformSpec{Domain: "example.org", Batteries: map[string]v1alpha1.BatterySettings{"dns": {Config: raw(`{"servers":3}`)}}},
		},
		"unknown field": {text: head + "spec: {domian: x}\n", err: `unknown field "spec.domian"`},
		"another kind":  {text: "apiVersion: v1\nkind: ConfigMap\n", err: "begin it with apiVersion: emerald.dev/v1alpha1 and kind: Platform"},
		"another name":  {text: head + "metadata: {name: ruby}\n", err: `it is called "ruby": the one of a cluster is called "emerald"`},
		"no YAML":       {text: "\t{", err: "read the Platform"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := ReadPlatform([]byte(tc.text))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want %q in it", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, p.Spec); diff != "" || p.Name != "emerald" {
				t.Errorf("name %q, spec (-want +got):\n%s", p.Name, diff)
			}
		})
	}
}

func FuzzReadPlatform(f *testing.F) {
	f.Add("apiVersion: emerald.dev/v1alpha1\nkind: Platform\nspec:\n  batteries:\n    dns: {enabled: false, config: {servers: [1]}}\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ReadPlatform([]byte(text))
		if err == nil {
			_ = Check(list(), p.Spec, battery.Site{}) // must not panic, whatever it says
		}
	})
}

func TestInventory(t *testing.T) {
	r := func(kind, name, version string) ref { return ref{Version: version, Kind: kind, Name: name} }
	ns, role, pod := r("Namespace", "n", "v1"), r("Role", "r", "v1"), r("Deployment", "d", "v1")
	inv := inventory{}.with([]ref{ns, role, pod})
	if diff := cmp.Diff([]ref{ns, role, pod}, inv.objects); diff != "" {
		t.Errorf("with (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]ref{pod, role, ns}, inv.without(nil)); diff != "" {
		t.Errorf("what depends on others goes first (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]ref{role}, inv.without([]ref{pod, r("Namespace", "n", "v2")})); diff != "" {
		t.Errorf("another version is the same object (-want +got):\n%s", diff)
	}
	if got := inv.with([]ref{r("Role", "r", "v2")}); len(got.objects) != 3 || got.objects[1].Version != "v2" {
		t.Errorf("with a newer version: %v", got.objects)
	}
	if inv.objects[1].Version != "v1" {
		t.Error("with changed the inventory it began with")
	}
	if !inv.equal(inv.with(nil)) || inv.equal(inventory{objects: inv.objects, applied: "x"}) {
		t.Error("equal does not tell inventories apart")
	}
}

func TestStages(t *testing.T) {
	objs := []kube.Object{
		&corev1.Namespace{}, &apiextensionsv1.CustomResourceDefinition{}, &corev1.ServiceAccount{}, &corev1.Service{},
		&appsv1.Deployment{}, &corev1.PersistentVolumeClaim{},
	}
	for _, o := range objs {
		if err := kube.SetKind(o); err != nil {
			t.Fatal(err)
		}
	}
	var got [][]string
	for _, s := range stages(objs) {
		kinds := []string{}
		if s.basic {
			kinds = append(kinds, "basic")
		}
		for _, o := range s.objs {
			kinds = append(kinds, o.GetObjectKind().GroupVersionKind().Kind)
		}
		got = append(got, kinds)
	}
	want := [][]string{
		{"basic", "Namespace", "CustomResourceDefinition"}, {"basic", "ServiceAccount", "Service"}, {"PersistentVolumeClaim"}, {"Deployment"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stages (-want +got):\n%s", diff)
	}
}

func TestDrift(t *testing.T) {
	r := ref{Version: "v1", Kind: "ConfigMap", Name: "x"}
	d := ref{Group: "apps", Version: "v1", Kind: "Deployment", Name: "y"}
	for name, tc := range map[string]struct {
		touch touch
		want  []ref
	}{
		"our own":               {touch{ref: r, version: version{0, "10"}}, nil},
		"what came before":      {touch{ref: r, version: version{0, "9"}}, nil},
		"somebody's":            {touch{ref: r, version: version{0, "11"}}, []ref{r}},
		"a longer number":       {touch{ref: r, version: version{0, "100"}}, []ref{r}},
		"deleted":               {touch{ref: r, version: version{0, "12"}, deleted: true}, []ref{r}},
		"deleted and made anew": {touch{ref: r, version: version{0, "8"}, deleted: true}, nil},
		"status":                {touch{ref: d, version: version{2, "30"}}, nil},
		"spec":                  {touch{ref: d, version: version{3, "30"}}, []ref{d}},
		"not ours":              {touch{ref: ref{Kind: "Secret", Name: "z"}, version: version{0, "99"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorker(nil, "x", nil, nil)
			w.seen = map[ref]version{r: {0, "10"}, d: {2, "20"}}
			w.touch(tc.touch)
			if diff := cmp.Diff(tc.want, w.drift()); diff != "" {
				t.Errorf("drift (-want +got):\n%s", diff)
			}
			if again := w.drift(); again != nil {
				t.Errorf("drift is told twice: %v", again)
			}
		})
	}
}

func TestTransient(t *testing.T) {
	services := schema.GroupResource{Resource: "services"}
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"refused":     {apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, "x", nil), false},
		"forbidden":   {apierrors.NewForbidden(services, "x", errors.New("policy")), false},
		"network":     {errors.New("connection refused"), true},
		"busy":        {apierrors.NewTooManyRequests("later", 1), true},
		"not yet":     {apierrors.NewNotFound(services, "x"), true},
		"terminating": {forbiddenBecauseTerminating(), true},
	} {
		if got := transient(tc.err); got != tc.want {
			t.Errorf("%s: transient = %t, want %t", name, got, tc.want)
		}
	}
}

func forbiddenBecauseTerminating() error {
	err := apierrors.NewForbidden(schema.GroupResource{Resource: "services"}, "x", errors.New("namespace is being terminated"))
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	return err
}

func TestReadyCondition(t *testing.T) {
	in := func(phases ...v1alpha1.Phase) []v1alpha1.BatteryStatus {
		var out []v1alpha1.BatteryStatus
		for i, p := range phases {
			out = append(out, v1alpha1.BatteryStatus{Name: string(rune('a' + i)), Phase: p})
		}
		return out
	}
	for name, tc := range map[string]struct {
		states []v1alpha1.BatteryStatus
		want   metav1.Condition
	}{
		"ready":      {in("Ready", "Off"), metav1.Condition{Status: "True", Reason: "Ready"}},
		"installing": {in("Ready", "Waiting", "Starting"), metav1.Condition{Status: "False", Reason: "Installing", Message: "b, c"}},
		"failed":     {in("Failed", "Waiting"), metav1.Condition{Status: "False", Reason: "Failed", Message: "a, b"}},
	} {
		tc.want.Type = v1alpha1.ConditionReady
		if diff := cmp.Diff(tc.want, readyCondition(tc.states), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
