package apps

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery/batterytest"
	"github.com/emerald-platform/emerald/kit/kube"
)

// full is an App that uses every field.
func full() *v1alpha1.App {
	app := appAt("team", "shop", 0, "shop.example.com", "shop.emerald.localhost")
	app.Spec.Command, app.Spec.Args = []string{"/shop"}, []string{"--verbose"}
	app.Spec.Port = 80
	app.Spec.Env = []v1alpha1.EnvVar{
		{Name: "MODE", Value: "live"},
		{Name: "TOKEN", ValueFrom: &v1alpha1.EnvSource{SecretKeyRef: &v1alpha1.KeyRef{Name: "tokens", Key: "shop"}}},
		{Name: "THEME", ValueFrom: &v1alpha1.EnvSource{ConfigMapKeyRef: &v1alpha1.KeyRef{Name: "themes", Key: "dark"}}},
	}
	app.Spec.Secrets = []v1alpha1.SecretUse{{Name: "shop.secrets-x"}, {Name: "keys", Path: "/etc/keys"}}
	app.Spec.Replicas = new(int32(3))
	app.Spec.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("32Mi")}
	app.Spec.Health = &v1alpha1.Health{Path: "/healthz", Port: 9000}
	return app
}

func TestRenderGolden(t *testing.T) {
	tests := map[string]struct {
		app  *v1alpha1.App
		user v1alpha1.ImageUserKind
	}{
		"small":  {appAt("default", "web", 0), v1alpha1.UserNumeric},
		"root":   {appAt("default", "web", 0), v1alpha1.UserRoot},
		"full":   {full(), v1alpha1.UserNumeric},
		"domain": {appAt("default", "web", 0, "www.example.com", domain), v1alpha1.UserNamed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			objs, err := render(tt.app, tt.user, batterytest.Site(&Battery))
			if err != nil {
				t.Fatal(err)
			}
			out, err := kube.YAML(objs)
			if err != nil {
				t.Fatal(err)
			}
			batterytest.Golden(t, "testdata/render-"+name+".yaml", out)
		})
	}
}

// What an App is made of must be let in where Pod Security is enforced: images
// that name a user where it is "restricted", root where it is "baseline".
func TestPodSecurity(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[v1alpha1.ImageUserKind]psa.Level{
		v1alpha1.UserNumeric: psa.LevelRestricted,
		v1alpha1.UserNamed:   psa.LevelRestricted,
		v1alpha1.UserRoot:    psa.LevelBaseline,
	}
	for user, level := range tests {
		t.Run(string(user), func(t *testing.T) {
			template := podOf(t, full(), user)
			results := evaluator.EvaluatePod(psa.LevelVersion{Level: level, Version: psa.LatestVersion()}, &template.ObjectMeta, &template.Spec)
			for _, r := range results {
				if !r.Allowed {
					t.Errorf("%s refuses it: %s: %s", level, r.ForbiddenReason, r.ForbiddenDetail)
				}
			}
		})
	}
}

func podOf(t *testing.T, app *v1alpha1.App, user v1alpha1.ImageUserKind) corev1.PodTemplateSpec {
	t.Helper()
	objs, err := render(app, user, batterytest.Site(&Battery))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objs {
		if d, ok := o.(*appsv1.Deployment); ok {
			return d.Spec.Template
		}
	}
	t.Fatal("there is no Deployment")
	return corev1.PodTemplateSpec{}
}

// A change that pods do not see must not restart them.
func TestPodsRollOnlyForWhatTheySee(t *testing.T) {
	base := podOf(t, full(), v1alpha1.UserNumeric).Labels[v1alpha1.LabelTemplate]
	tests := map[string]struct {
		change func(*v1alpha1.App)
		rolls  bool
	}{
		"nothing":     {func(*v1alpha1.App) {}, false},
		"domain":      {func(a *v1alpha1.App) { a.Spec.Domains = nil }, false},
		"replicas":    {func(a *v1alpha1.App) { a.Spec.Replicas = new(int32(5)) }, false},
		"annotations": {func(a *v1alpha1.App) { a.Annotations = map[string]string{"a": "b"} }, false},
		"image":       {func(a *v1alpha1.App) { a.Spec.Image = "other" }, true},
		"variable":    {func(a *v1alpha1.App) { a.Spec.Env[0].Value = "test" }, true},
		"secret":      {func(a *v1alpha1.App) { a.Spec.Secrets[0].Name = "shop.secrets-y" }, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			app := full()
			tt.change(app)
			if got := podOf(t, app, v1alpha1.UserNumeric).Labels[v1alpha1.LabelTemplate] != base; got != tt.rolls {
				t.Errorf("pods roll: %v, want %v", got, tt.rolls)
			}
		})
	}
}

func TestResourceDefaults(t *testing.T) {
	list := func(memory string) corev1.ResourceList {
		if memory == "" {
			return nil
		}
		return corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(memory)}
	}
	tests := map[string]struct{ request, limit, wantRequest, wantLimit string }{
		"nothing given":            {"", "", "64Mi", "512Mi"},
		"small limit":              {"", "32Mi", "32Mi", "32Mi"},
		"large limit":              {"", "2Gi", "64Mi", "2Gi"},
		"large request":            {"1Gi", "", "1Gi", "1Gi"},
		"both":                     {"1Gi", "2Gi", "1Gi", "2Gi"},
		"request above its limit":  {"2Gi", "1Gi", "2Gi", "1Gi"},
		"request below the limits": {"100Mi", "", "100Mi", "512Mi"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			app := appAt("default", "web", 0)
			app.Spec.Resources = v1alpha1.AppResources{Requests: list(tt.request), Limits: list(tt.limit)}
			got := podOf(t, app, v1alpha1.UserNumeric).Spec.Containers[0].Resources
			if m := got.Requests.Memory().String(); m != tt.wantRequest {
				t.Errorf("requests %s, want %s", m, tt.wantRequest)
			}
			if m := got.Limits.Memory().String(); m != tt.wantLimit {
				t.Errorf("limited to %s, want %s", m, tt.wantLimit)
			}
		})
	}
}

// Two Apps never make objects of the same name, whatever they are called.
func TestNamesDoNotCollide(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"web", "web-redirect", "web-tls", "redirect", strings.Repeat("a", 63)} {
		objs, err := render(appAt("default", name, 0, "example.com"), v1alpha1.UserNumeric, batterytest.Site(&Battery))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objs {
			key := o.GetObjectKind().GroupVersionKind().Kind + "/" + o.GetName()
			if by, taken := seen[key]; taken {
				t.Errorf("%s is made by %s and %s", key, by, name)
			}
			seen[key] = name
		}
	}
}
