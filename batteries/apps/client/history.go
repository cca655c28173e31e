package client

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// Revision is one spec of an App's history.
type Revision struct {
	Number  int64            `json:"revision"`
	Image   string           `json:"image"`
	Made    time.Time        `json:"made"`
	Cause   string           `json:"cause,omitempty"`
	Healthy bool             `json:"healthy"` // it once ran with every copy healthy
	Current bool             `json:"current"`
	Spec    v1alpha1.AppSpec `json:"-"`

	user string // the annotation about the image's user
}

// History returns the App's revisions, the newest last.
func (c *Client) History(ctx context.Context, app *v1alpha1.App) ([]Revision, error) {
	var list appsv1.ControllerRevisionList
	err := c.api.List(ctx, &list, client.InNamespace(app.Namespace), client.MatchingLabels{v1alpha1.LabelApp: app.Name})
	if err != nil {
		return nil, fmt.Errorf("list the revisions of app %q: %w", app.Name, explain(err))
	}
	var out []Revision
	for i := range list.Items {
		r := &list.Items[i]
		if !metav1.IsControlledBy(r, app) {
			continue
		}
		rev := Revision{
			Number: r.Revision, Made: r.CreationTimestamp.Time, Cause: r.Annotations[v1alpha1.AnnotationCause],
			Healthy: r.Annotations[v1alpha1.AnnotationHealthy] == "true", Current: r.Revision == app.Status.Revision,
		}
		rev.user = r.Annotations[v1alpha1.AnnotationImageUser]
		if err := json.Unmarshal(r.Data.Raw, &rev.Spec); err != nil {
			return nil, fmt.Errorf("decode revision %d of app %q: %w", r.Revision, app.Name, err)
		}
		rev.Image = rev.Spec.Image
		out = append(out, rev)
	}
	slices.SortFunc(out, func(a, b Revision) int { return int(a.Number - b.Number) })
	return out, nil
}

// Rollback makes the App's spec that of an earlier revision: number, or when
// that is 0 the last one before the present that ran healthily. It returns the
// change, to be followed, and the revision.
func (c *Client) Rollback(ctx context.Context, namespace, name string, number int64) (*Deployment, Revision, error) {
	app, err := c.Get(ctx, namespace, name)
	if err != nil {
		return nil, Revision{}, err
	}
	history, err := c.History(ctx, app)
	if err != nil {
		return nil, Revision{}, err
	}
	target, err := pick(app, history, number)
	if err != nil {
		return nil, Revision{}, err
	}
	out, err := c.submit(ctx, app, submission{
		outcome: outcome{spec: target.Spec, touched: specFields, autoPort: app.Annotations[v1alpha1.AnnotationPort] == autoPort},
		user:    target.user,
		cause:   fmt.Sprintf("rollback to revision %d", target.Number),
		force:   true,
	})
	if err != nil {
		return nil, Revision{}, err
	}
	return &Deployment{App: out, Previous: app}, target, nil
}

// pick chooses the revision to return to.
func pick(app *v1alpha1.App, history []Revision, number int64) (Revision, error) {
	show := "see them with: emerald app show " + app.Name
	for _, r := range slices.Backward(history) {
		switch {
		case number != 0 && r.Number == number:
			if r.Current {
				return Revision{}, fmt.Errorf("roll back app %q: revision %d is the present one: %s", app.Name, number, show)
			}
			return r, nil
		case number == 0 && !r.Current && r.Healthy:
			return r, nil
		}
	}
	if number != 0 {
		return Revision{}, fmt.Errorf("roll back app %q: there is no revision %d: %s", app.Name, number, show)
	}
	return Revision{}, fmt.Errorf("roll back app %q: no earlier revision ever ran healthily: %s", app.Name, show)
}
