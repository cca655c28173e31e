// Package batterytest is the contract's test suite: what every battery's own
// test runs, in three lines.
//
//	func TestBattery(t *testing.T) { batterytest.Run(t, &Battery) }
//
// It promises that a battery which passes is sound, renders the same objects
// every time, asks for no more rights than it names a reason for, and is
// documented. It refuses to need a cluster: what a battery does there is shown
// by its Proofs.
//
// Invariant: every exception a battery has from a rule stands in its test, with
// the reason, and is needed.
package batterytest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

// An Exception frees a battery from one rule, for a reason.
type Exception struct {
	rule   Rule
	reason string
}

// Except makes an Exception. The reason is a clause that says what the battery
// does that cannot be done otherwise; it must not be empty.
func Except(rule Rule, reason string) Exception { return Exception{rule, reason} }

// Run checks a battery against the contract: the list rules of
// [battery.Validate], purity, the golden file testdata/manifests.yaml beside
// the test, least privilege, and README.md. Exceptions that are not needed are
// failures, too.
func Run(t *testing.T, b *battery.Battery, exceptions ...Exception) {
	t.Helper()
	t.Run("contract", func(t *testing.T) { contract(t, b) })
	objs := rendered(t, b, Site(b))
	t.Run("pure", func(t *testing.T) { pure(t, b) })
	t.Run("golden", func(t *testing.T) { golden(t, objs) })
	t.Run("privilege", func(t *testing.T) { privilege(t, b, objs, exceptions) })
	t.Run("readme", func(t *testing.T) { readme(t, b) })
}

// Site returns the Site of the golden files: one machine that Emerald booted,
// and the battery's defaults.
func Site(b *battery.Battery) battery.Site {
	return battery.Site{
		Domain:          "emerald.localhost",
		Namespace:       battery.NamespaceOf(b.Name),
		Image:           "emerald.dev/emerald@sha256:" + strings.Repeat("0", 64),
		Replicas:        1,
		ClusterDomain:   "cluster.local",
		DNSAddress:      "10.43.0.10",
		RegistryAddress: "10.43.0.11",
		DataDir:         "/var/lib/emerald",
		Config:          b.Config,
	}
}

func contract(t *testing.T, b *battery.Battery) {
	all := []battery.Battery{*b}
	for _, need := range b.Needs {
		if need == b.Name {
			continue
		}
		all = append(all, battery.Battery{
			Name: need, Doc: "Stands in for a need.",
			Manifests: func(battery.Site) ([]kube.Object, error) { return nil, nil },
		})
	}
	if err := battery.Validate(all); err != nil {
		t.Error(err)
	}
}

func rendered(t *testing.T, b *battery.Battery, s battery.Site) []kube.Object {
	t.Helper()
	objs, err := battery.Complete(b, s)
	if err != nil {
		t.Fatal(err)
	}
	return objs
}

func asYAML(t *testing.T, objs []kube.Object) string {
	t.Helper()
	out, err := kube.YAML(objs)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// pure renders twice, and another site in between, so that objects kept in
// package variables and changed on the way show up.
func pure(t *testing.T, b *battery.Battery) {
	first := asYAML(t, rendered(t, b, Site(b)))
	spread := Site(b)
	spread.Replicas, spread.DataDir, spread.Domain = 3, "", "example.org"
	asYAML(t, rendered(t, b, spread))
	if diff := cmp.Diff(first, asYAML(t, rendered(t, b, Site(b)))); diff != "" {
		t.Errorf("Manifests is not pure: rendering again gives something else (-first +again):\n%s", diff)
	}
}

func golden(t *testing.T, objs []kube.Object) {
	short := make([]kube.Object, len(objs))
	for i, o := range objs {
		short[i] = abbreviate(t, o)
	}
	Golden(t, "testdata/manifests.yaml", []byte(asYAML(t, short)))
}

// abbreviate returns a definition without its schemas, which would bury the
// rest of the golden file, and with a digest of them instead.
func abbreviate(t *testing.T, o kube.Object) kube.Object {
	t.Helper()
	if o.GetObjectKind().GroupVersionKind().Kind != "CustomResourceDefinition" {
		return o
	}
	u, err := kube.Desired(o)
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	typed(t, u, &crd)
	raw, err := u.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var versions []any
	for _, v := range crd.Spec.Versions {
		versions = append(versions, v.Name)
	}
	u.Object["spec"] = map[string]any{
		"group": crd.Spec.Group, "kind": crd.Spec.Names.Kind, "scope": string(crd.Spec.Scope), "versions": versions,
		"sha256": fmt.Sprintf("%x", sha256.Sum256(raw)),
	}
	u.SetAnnotations(nil)
	return u
}

// readme demands the headings that people look for, and every setting.
func readme(t *testing.T, b *battery.Battery) {
	raw, err := os.ReadFile("README.md")
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatal("README.md does not exist: say what the battery is, with examples, its settings and the way out")
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range readmeProblems(b, string(raw)) {
		t.Errorf("README.md: %s", problem)
	}
}

var heading = regexp.MustCompile(`(?m)^(#+) +(.+?) *$`)

func readmeProblems(b *battery.Battery, text string) []string {
	var problems, headings []string
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		headings = append(headings, m[1]+" "+strings.ToLower(m[2]))
	}
	has := func(words ...string) bool {
		return slices.ContainsFunc(headings, func(h string) bool {
			return strings.HasPrefix(h, "##") && slices.ContainsFunc(words, func(w string) bool { return strings.Contains(h, w) })
		})
	}
	if len(headings) == 0 || !strings.HasPrefix(headings[0], "# ") || !strings.Contains(headings[0], b.Name) {
		problems = append(problems, fmt.Sprintf("must begin with the title %q", "# "+b.Name))
	}
	if !has("example", "try") {
		problems = append(problems, "has no section with examples, called Examples or Try it")
	}
	if !has("way out") {
		problems = append(problems, "has no section Way out: name what takes over when this is too small")
	}
	if b.Config != nil && !has("settings") {
		problems = append(problems, "has no section Settings")
	}
	for _, field := range battery.ConfigFields(b) {
		if !strings.Contains(text, "`"+field+"`") {
			problems = append(problems, fmt.Sprintf("does not name the setting `%s`", field))
		}
	}
	return problems
}

// typed decodes u into the Go type of its kind.
func typed(t *testing.T, u *unstructured.Unstructured, into any) {
	t.Helper()
	if err := fromUnstructured(u, into); err != nil {
		t.Fatal(err)
	}
}
