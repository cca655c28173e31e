package apps

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

const domain = "emerald.localhost"

// appAt returns an App made second seconds after the first.
func appAt(namespace, name string, second int, domains ...v1alpha1.Domain) *v1alpha1.App {
	return &v1alpha1.App{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, UID: types.UID(namespace + "/" + name),
			CreationTimestamp: metav1.NewTime(time.Date(2026, 1, 1, 0, 0, second, 0, time.UTC)),
		},
		Spec: v1alpha1.AppSpec{Image: "registry.emerald.localhost/default/web@sha256:ab", Port: 8080, Domains: domains},
	}
}

func TestHostsOf(t *testing.T) {
	tests := map[string]struct {
		app  *v1alpha1.App
		want []string
	}{
		"default namespace": {appAt("default", "web", 0), []string{"web.emerald.localhost"}},
		"other namespace":   {appAt("team", "web", 0), []string{"web.team.emerald.localhost"}},
		"its own name again": {
			appAt("default", "web", 0, "web.emerald.localhost", "example.com"),
			[]string{"web.emerald.localhost", "example.com"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, hostsOf(tt.app, domain)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestCovered(t *testing.T) {
	for host, want := range map[string]bool{
		"emerald.localhost":          true,
		"web.emerald.localhost":      true,
		"web.team.emerald.localhost": false,
		"example.com":                false,
		"notemerald.localhost":       false,
		"localhost":                  false,
	} {
		if got := covered(host, domain); got != want {
			t.Errorf("covered(%q) = %v, want %v", host, got, want)
		}
	}
}

func TestForbidden(t *testing.T) {
	tests := []struct {
		host, namespace string
		want            string // a part of the reason; "" allows
	}{
		{"web.emerald.localhost", "default", ""},
		{"web.emerald.localhost", "team", ""},
		{"emerald.localhost", "team", ""},
		{"example.com", "team", ""},
		{"registry.emerald.localhost", "default", "belongs to the platform"},
		{"web.registry.emerald.localhost", "registry", ""},
		{"web.team.emerald.localhost", "team", ""},
		{"a.b.team.emerald.localhost", "team", ""},
		{"web.team.emerald.localhost", "other", `belongs to the namespace "team"`},
		{"web.team.emerald.localhost", "default", `belongs to the namespace "team"`},
		{"web.default.emerald.localhost", "team", `belongs to the namespace "default"`},
	}
	for _, tt := range tests {
		got := forbidden(tt.host, tt.namespace, domain, []string{"registry"})
		if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("forbidden(%q, %q) = %q, want %q", tt.host, tt.namespace, got, tt.want)
		}
	}
}

func TestClaims(t *testing.T) {
	free := func(string) (holder, bool) { return holder{}, false }
	route := holder{kind: "route", namespace: "x", name: "y"}
	first, second := appAt("default", "a", 0, "example.com"), appAt("default", "b", 1, "example.com")

	var c claims
	c.restore(nil)
	if got := c.take(second, hostsOf(second, domain), free); got != nil {
		t.Fatalf("a free host is refused: %v", got)
	}
	got := c.take(first, hostsOf(first, domain), free)
	if len(got) != 1 || got[0].host != "example.com" || got[0].by != holderOf(second) {
		t.Fatalf("who got it first holds it, even against an older App: %v", got)
	}
	if !strings.Contains(got[0].message(), "app default/b") {
		t.Errorf("the message does not name the holder: %s", got[0].message())
	}
	if _, held := c.holders["a.emerald.localhost"]; held {
		t.Error("an App that was refused one host got another: half of it is made")
	}
	// Made anew under the same name: no conflict with itself.
	again := appAt("default", "b", 5, "example.com")
	again.UID = "new"
	if got := c.take(again, hostsOf(again, domain), free); got != nil {
		t.Errorf("an App conflicts with its predecessor: %v", got)
	}
	again.Spec.Domains = nil
	c.take(again, hostsOf(again, domain), free)
	if got := c.take(first, hostsOf(first, domain), free); got != nil {
		t.Errorf("a host given up is not free: %v", got)
	}
	c.drop("default", "a")
	if got := c.take(second, hostsOf(second, domain), func(h string) (holder, bool) { return route, h == "example.com" }); len(got) != 1 || got[0].by != route {
		t.Errorf("a route made by hand does not hold its host: %v", got)
	}
}

func TestClaimsRestored(t *testing.T) {
	older, younger := appAt("default", "old", 0, "example.com"), appAt("default", "new", 9, "example.com", "example.org")
	older.Status.Hosts = []string{"old.emerald.localhost", "example.com"}
	younger.Status.Hosts = []string{"new.emerald.localhost", "example.com", "example.org"}
	var c claims
	c.restore([]v1alpha1.App{*younger, *older})
	want := map[string]holder{
		"old.emerald.localhost": holderOf(older), "example.com": holderOf(older),
		"new.emerald.localhost": holderOf(younger), "example.org": holderOf(younger),
	}
	if diff := cmp.Diff(want, c.holders, cmp.AllowUnexported(holder{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
