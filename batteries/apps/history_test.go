package apps

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// TestHistory deploys images one after the other and looks at what is kept.
func TestHistory(t *testing.T) {
	const keep = 3
	app := appAt("default", "web", 0)
	var have []appsv1.ControllerRevision
	deploy := func(image string) plan {
		app.Spec.Image = image
		p, err := planHistory(app, have, keep, rendering{app: app}.meta(""))
		if err != nil {
			t.Fatal(err)
		}
		var next []appsv1.ControllerRevision
		for _, r := range have {
			removed := false
			for _, old := range p.remove {
				removed = removed || old.Name == r.Name
			}
			if !removed && r.Name != p.current.Name {
				next = append(next, r)
			}
		}
		have = append(next, *p.current)
		return p
	}
	images := func() (out []string) {
		sortRevisions(have)
		for i := range have {
			var spec v1alpha1.AppSpec
			if err := json.Unmarshal(have[i].Data.Raw, &spec); err != nil {
				t.Fatal(err)
			}
			out = append(out, spec.Image)
		}
		return out
	}

	for i, image := range []string{"a", "b", "c"} {
		if p := deploy(image); !p.create || p.current.Revision != int64(i+1) {
			t.Errorf("deploy of %s: revision %d, created: %v", image, p.current.Revision, p.create)
		}
	}
	if p := deploy("c"); p.create || p.renumber {
		t.Error("the same spec again is a new revision")
	}
	if p := deploy("a"); p.create || !p.renumber || p.current.Revision != 4 {
		t.Errorf("going back to a is revision %d, created: %v", p.current.Revision, p.create)
	}
	if diff := cmp.Diff([]string{"b", "c", "a"}, images()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	deploy("d")
	deploy("e")
	if diff := cmp.Diff([]string{"c", "a", "d", "e"}, images()); diff != "" {
		t.Errorf("the oldest was not forgotten, -want +got:\n%s", diff)
	}
}

func TestHistoryNotesTheCause(t *testing.T) {
	app := appAt("default", "web", 0)
	app.Annotations = map[string]string{v1alpha1.AnnotationCause: "emerald deploy ."}
	p, err := planHistory(app, nil, 1, rendering{app: app}.meta(""))
	if err != nil {
		t.Fatal(err)
	}
	if got := p.current.Annotations[v1alpha1.AnnotationCause]; got != "emerald deploy ." {
		t.Errorf("cause %q", got)
	}
}
