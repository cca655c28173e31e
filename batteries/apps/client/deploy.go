package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/batteries/apps"
)

// undoTime is how long taking something back may take after the user gave up.
const undoTime = 30 * time.Second

// How long an App may take to go. Deleting one waits for its copies, which have
// half a minute each to end; letting go of them takes the garbage collector less
// than a second, unless it learns of the kind only now.
const (
	deleteTime = 5 * time.Minute
	ejectTime  = 2 * time.Minute
)

// Deployment is a change that was accepted and is being rolled out.
type Deployment struct {
	App      *v1alpha1.App
	Previous *v1alpha1.App // nil for a new App
}

// CheckHosts returns an error that names the holder when a host name that an
// App would have is another's already. It is a courtesy before long work: it
// sees what the caller may see, and the controller decides.
func (c *Client) CheckHosts(ctx context.Context, namespace, name string, domains []v1alpha1.Domain) error {
	domain, err := c.Domain(ctx)
	if err != nil {
		return ignoreForbidden(err)
	}
	all, err := c.List(ctx, "")
	if err != nil {
		return ignoreForbidden(err)
	}
	wanted := []string{apps.HostOf(name, namespace, domain)}
	for _, d := range domains {
		wanted = append(wanted, string(d))
	}
	for i := range all {
		other := &all[i]
		if other.Name == name && other.Namespace == namespace {
			continue
		}
		for _, host := range wanted {
			if slices.Contains(other.Status.Hosts, host) {
				return fmt.Errorf("deploy app %q: %s is taken by app %s/%s: choose another name or domain, or remove it there first",
					name, host, other.Namespace, other.Name)
			}
		}
	}
	return nil
}

func ignoreForbidden(err error) error {
	if apierrors.IsForbidden(err) {
		return nil
	}
	return err
}

// Deploy makes or changes an App. When it returns an error nothing has changed;
// otherwise the change is accepted and [Client.Wait] follows it.
func (c *Client) Deploy(ctx context.Context, namespace, name string, change Change) (*Deployment, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	app, err := c.Get(ctx, namespace, name)
	d := &Deployment{}
	switch {
	case errors.Is(err, ErrNotFound):
		if err := c.CheckNamespace(ctx, namespace); err != nil {
			return nil, err
		}
		app = &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	case err != nil:
		return nil, err
	case app.DeletionTimestamp != nil:
		return nil, fmt.Errorf("deploy app %q: it is being deleted: try again when it is gone", name)
	default:
		d.Previous = app.DeepCopy()
	}

	own, dropSecret, err := c.prepareSecret(ctx, app, change.Secrets)
	if err != nil {
		return nil, err
	}
	d.App, err = c.deploy(ctx, app, change, own)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		return nil, errors.Join(err, dropSecret(undo))
	}
	return d, nil
}

func (c *Client) deploy(ctx context.Context, app *v1alpha1.App, change Change, own string) (*v1alpha1.App, error) {
	out, err := change.apply(app, own)
	if err != nil {
		return nil, fmt.Errorf("deploy app %q: %w", app.Name, err)
	}
	s := submission{outcome: out, cause: change.Cause, user: app.Annotations[v1alpha1.AnnotationImageUser]}
	if change.Image != "" {
		s.user = ""
		if change.ImageUser != "" {
			s.user = string(change.ImageUser) + " " + change.Image
		}
	}
	return c.submit(ctx, app, s)
}

// submission is one version of an App on its way to the API server.
type submission struct {
	outcome
	user  string // the annotation about the image's user
	cause string
	force bool // take over fields that others manage
}

// submit applies a new version of app, which may not exist yet, and returns it
// as the API server then has it.
func (c *Client) submit(ctx context.Context, app *v1alpha1.App, s submission) (*v1alpha1.App, error) {
	u, err := applied(app, s.outcome)
	if err != nil {
		return nil, err
	}
	notes := map[string]string{}
	if s.cause != "" {
		notes[v1alpha1.AnnotationCause] = s.cause
	}
	if s.user != "" {
		notes[v1alpha1.AnnotationImageUser] = s.user
	}
	if s.autoPort {
		notes[v1alpha1.AnnotationPort] = autoPort
	}
	u.SetAnnotations(notes)
	opts := []client.ApplyOption{client.FieldOwner(Manager)}
	if s.force {
		opts = append(opts, client.ForceOwnership)
	}
	err = c.api.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), opts...)
	switch {
	case apierrors.IsConflict(err):
		return nil, fmt.Errorf("change app %q: another tool manages what you want to change: %w: change it there", app.Name, err)
	case err != nil:
		return nil, fmt.Errorf("change app %q: %w", app.Name, explain(err))
	}
	out := &v1alpha1.App{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
		return nil, fmt.Errorf("read back app %q: %w", app.Name, err)
	}
	return out, nil
}

// Undo takes a deployment back that was refused: a new App goes, a changed one
// gets its former spec.
func (c *Client) Undo(ctx context.Context, d *Deployment) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if d.Previous == nil {
		return c.Delete(ctx, d.App)
	}
	_, err := c.submit(ctx, d.App, submission{
		outcome: outcome{spec: d.Previous.Spec, autoPort: d.Previous.Annotations[v1alpha1.AnnotationPort] == autoPort},
		user:    d.Previous.Annotations[v1alpha1.AnnotationImageUser],
		cause:   d.Previous.Annotations[v1alpha1.AnnotationCause],
		force:   true,
	})
	return err
}

// Settle tidies up after a deployment that went well.
func (c *Client) Settle(ctx context.Context, app *v1alpha1.App) error {
	return c.settleSecrets(ctx, app)
}

func (c *Client) remove(ctx context.Context, app *v1alpha1.App) error {
	uid := app.UID
	err := c.api.Delete(ctx, app, client.PropagationPolicy(metav1.DeletePropagationForeground),
		&client.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete app %q: %w", app.Name, explain(err))
	}
	return nil
}

// dropSecrets removes what the garbage collector does not: own Secrets that were
// made for an App before it could own them, and the certificates of its domains.
func (c *Client) dropSecrets(ctx context.Context, app *v1alpha1.App) error {
	var secrets corev1.SecretList
	err := c.api.List(ctx, &secrets, client.InNamespace(app.Namespace), client.MatchingLabels{v1alpha1.LabelApp: app.Name})
	if apierrors.IsForbidden(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the secrets of app %q: %w", app.Name, err)
	}
	for i := range secrets.Items {
		s := &secrets.Items[i]
		if !isOwnSecret(app.Name, s.Name) && s.Annotations["cert-manager.io/certificate-name"] == "" {
			continue
		}
		if err := client.IgnoreNotFound(c.api.Delete(ctx, s)); err != nil {
			return fmt.Errorf("remove secret %q: %w", s.Name, err)
		}
	}
	return nil
}

// Delete removes an App and waits until everything it was made of is gone.
func (c *Client) Delete(ctx context.Context, app *v1alpha1.App) error {
	if err := c.remove(ctx, app); err != nil {
		return err
	}
	if err := c.gone(ctx, app, deleteTime); err != nil {
		return fmt.Errorf("delete app %q: %w", app.Name, err)
	}
	return c.dropSecrets(ctx, app)
}

// Scale sets how many copies of an App run.
func (c *Client) Scale(ctx context.Context, namespace, name string, replicas int32) (*Deployment, error) {
	app, err := c.Get(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	spec := *app.Spec.DeepCopy()
	spec.Replicas = &replicas
	// Scaling is also an autoscaler's business: whoever scales by hand takes
	// the field over, as with `kubectl scale`.
	out, err := c.submit(ctx, app, submission{
		outcome: outcome{spec: spec, touched: []string{"replicas"}, autoPort: app.Annotations[v1alpha1.AnnotationPort] == autoPort},
		user:    app.Annotations[v1alpha1.AnnotationImageUser],
		cause:   fmt.Sprintf("scale to %d", replicas),
		force:   true,
	})
	if err != nil {
		return nil, err
	}
	return &Deployment{App: out, Previous: app}, nil
}

// Eject removes an App and leaves all it was made of running, owned by nobody.
func (c *Client) Eject(ctx context.Context, namespace, name string) error {
	app, err := c.Get(ctx, namespace, name)
	if err != nil {
		return err
	}
	uid := app.UID
	err = c.api.Delete(ctx, app, client.PropagationPolicy(metav1.DeletePropagationOrphan),
		&client.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("eject app %q: %w", name, explain(err))
	}
	if err := c.gone(ctx, app, ejectTime); err != nil {
		return fmt.Errorf("eject app %q: %w", name, err)
	}
	return nil
}
