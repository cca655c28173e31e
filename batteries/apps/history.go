package apps

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// sortRevisions orders revisions by number, the newest last.
func sortRevisions(revisions []appsv1.ControllerRevision) {
	slices.SortFunc(revisions, func(a, b appsv1.ControllerRevision) int { return int(a.Revision - b.Revision) })
}

// plan is what has to change for a history to hold an App's spec: at most one
// of create and renumber, and what is too old to keep.
type plan struct {
	current  *appsv1.ControllerRevision // as it shall be
	create   bool
	renumber bool
	remove   []*appsv1.ControllerRevision
}

// planHistory says how the revisions of an App come to end with its present
// spec: a spec seen before gets a new number, as a rolled back Deployment does.
// keep is how many older ones stay. It is pure.
func planHistory(app *v1alpha1.App, revisions []appsv1.ControllerRevision, keep int, meta metav1.ObjectMeta) (plan, error) {
	raw, err := canonical(app.Spec)
	if err != nil {
		return plan{}, fmt.Errorf("record app %q: %w", app.Name, err)
	}
	fingerprint, err := digest(app.Spec)
	if err != nil {
		return plan{}, fmt.Errorf("record app %q: %w", app.Name, err)
	}
	sortRevisions(revisions)
	last := int64(0)
	if n := len(revisions); n > 0 {
		last = revisions[n-1].Revision
	}
	meta.Name = app.Name + "." + fingerprint
	for _, note := range []string{v1alpha1.AnnotationCause, v1alpha1.AnnotationImageUser} {
		if value := app.Annotations[note]; value != "" {
			metav1.SetMetaDataAnnotation(&meta, note, value)
		}
	}
	p := plan{
		create: true,
		current: &appsv1.ControllerRevision{
			TypeMeta: typed("apps", "v1", "ControllerRevision"), ObjectMeta: meta,
			Data: runtime.RawExtension{Raw: raw}, Revision: last + 1,
		},
	}
	var older []*appsv1.ControllerRevision
	for i := range revisions {
		r := &revisions[i]
		if r.Name != meta.Name {
			older = append(older, r)
			continue
		}
		p.create, p.current = false, r
		if r.Revision < last {
			p.renumber = true
			p.current = r.DeepCopy()
			p.current.Revision = last + 1
		}
	}
	if n := len(older) - keep; n > 0 {
		p.remove = older[:n]
	}
	return p, nil
}

// record makes the App's history end with its present spec and returns that
// revision. owned is the metadata of an object of the App.
func (r *reconciler) record(ctx context.Context, app *v1alpha1.App, owned metav1.ObjectMeta) (*appsv1.ControllerRevision, error) {
	var list appsv1.ControllerRevisionList
	if err := r.client.List(ctx, &list, client.InNamespace(app.Namespace), client.MatchingLabels{v1alpha1.LabelApp: app.Name}); err != nil {
		return nil, fmt.Errorf("list the revisions of app %q: %w", app.Name, err)
	}
	mine := slices.DeleteFunc(list.Items, func(c appsv1.ControllerRevision) bool { return !metav1.IsControlledBy(&c, app) })
	p, err := planHistory(app, mine, config(r.site).History, owned)
	if err != nil {
		return nil, err
	}
	switch {
	case p.create:
		// The cache may not show yet what the last call made.
		if err = r.client.Create(ctx, p.current); apierrors.IsAlreadyExists(err) {
			err = nil
		}
	case p.renumber:
		err = r.client.Patch(ctx, p.current, client.RawPatch(mergePatch, fmt.Appendf(nil, `{"revision":%d}`, p.current.Revision)))
	}
	if err != nil {
		return nil, fmt.Errorf("record revision %d of app %q: %w", p.current.Revision, app.Name, err)
	}
	for _, old := range p.remove {
		if err := client.IgnoreNotFound(r.client.Delete(ctx, old)); err != nil {
			return nil, fmt.Errorf("forget revision %d of app %q: %w", old.Revision, app.Name, err)
		}
	}
	return p.current, nil
}

// praise notes on the revision that it ran well.
func (r *reconciler) praise(ctx context.Context, revision *appsv1.ControllerRevision) error {
	if revision.Annotations[v1alpha1.AnnotationHealthy] == "true" {
		return nil
	}
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"true"}}}`, v1alpha1.AnnotationHealthy)
	if err := r.client.Patch(ctx, revision, client.RawPatch(mergePatch, patch)); err != nil {
		return fmt.Errorf("note that revision %d is healthy: %w", revision.Revision, err)
	}
	return nil
}
