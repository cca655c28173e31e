package apps

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
)

const mergePatch = types.MergePatchType

// retryRefused is when an App that cannot be acted on is looked at again, in
// case what stood in its way was nothing this controller watches.
const retryRefused = 30 * time.Second

// retryFirst and retryLast are how soon an App is looked at again after an
// error.
const (
	retryFirst = 50 * time.Millisecond
	retryLast  = 30 * time.Second
	// retrySoon is for what comes by itself.
	retrySoon = 250 * time.Millisecond
)

// reconciler makes the cluster match one App at a time. The state of an App is
// in its conditions:
//
//	        hosts free, objects accepted
//	new ───────────────────────────────▶ RollingOut ──▶ Complete ⇄ (spec changes)
//	 │                                       │
//	 └─▶ HostTaken, NameTaken, Refused       └─▶ CrashLoopBackOff, ImagePullBackOff …
//	     nothing was changed                     old copies keep serving
type reconciler struct {
	client client.Client // reads from the cache
	live   client.Reader // reads from the API server
	site   battery.Site
	log    *slog.Logger

	claims  claims
	restore sync.Once

	// applied remembers what was sent and what came of it, so that an App that
	// did not change costs no request.
	applied map[objectKey]appliedObject
}

// refusal is why an App cannot be acted on. It is not an error of the
// controller: the App's status tells its user.
type refusal struct{ reason, message string }

func (e refusal) Error() string { return e.reason + ": " + e.message }

// delay is what an App waits for that comes by itself, soon.
type delay struct{ message string }

func (e delay) Error() string { return e.message }

// Reconcile brings one App to what its spec asks for. It is called by one
// worker at a time, whenever the App or anything made from it changed.
func (r *reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var restoreErr error
	r.restore.Do(func() {
		var all v1alpha1.AppList
		if restoreErr = r.client.List(ctx, &all); restoreErr == nil {
			r.claims.restore(all.Items)
		}
	})
	if restoreErr != nil {
		r.restore = sync.Once{}
		return reconcile.Result{}, fmt.Errorf("list apps: %w", restoreErr)
	}

	app := &v1alpha1.App{}
	err := r.client.Get(ctx, req.NamespacedName, app)
	if apierrors.IsNotFound(err) || (err == nil && app.DeletionTimestamp != nil) {
		r.claims.drop(req.Namespace, req.Name)
		return reconcile.Result{}, nil
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("read app %q: %w", req, err)
	}

	before := app.DeepCopy()
	result := reconcile.Result{}
	err = r.bring(ctx, app)
	var no refusal
	var later delay
	switch {
	case errors.As(err, &no):
		refuse(app, no.reason, no.message)
		result.RequeueAfter = retryRefused
	case errors.As(err, &later):
		write(app, v1alpha1.ConditionProgressing, finding{metav1.ConditionTrue, v1alpha1.ReasonRollingOut, later.message})
		write(app, v1alpha1.ConditionReady, finding{metav1.ConditionFalse, v1alpha1.ReasonRollingOut, later.message})
		result.RequeueAfter = retrySoon
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("app %q: %w", req, err)
	}
	app.Status.ObservedGeneration = app.Generation
	if !equality.Semantic.DeepEqual(before.Status, app.Status) {
		if err := r.client.Status().Patch(ctx, app, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, fmt.Errorf("write the status of app %q: %w", req, err)
		}
		r.log.Debug("app observed", "app", req.String(), "ready", readyReason(app))
	}
	return result, nil
}

func readyReason(app *v1alpha1.App) string {
	for _, c := range app.Status.Conditions {
		if c.Type == v1alpha1.ConditionReady {
			return c.Reason
		}
	}
	return ""
}

// bring makes what the App is made of and writes what it sees into its status.
// A refusal means that nothing was changed.
func (r *reconciler) bring(ctx context.Context, app *v1alpha1.App) error {
	o := observed{}
	var pods corev1.PodList
	if err := r.client.List(ctx, &pods, client.InNamespace(app.Namespace), client.MatchingLabels{v1alpha1.LabelApp: app.Name}); err != nil {
		return fmt.Errorf("list its pods: %w", err)
	}
	o.pods = pods.Items
	if kind, ok := learnUser(app, o.pods); ok {
		app.Status.ImageUser = &v1alpha1.ImageUser{Image: app.Spec.Image, Kind: kind}
	}
	user := userOf(app)
	if user != v1alpha1.UserNumeric && config(r.site).RootImages == RootRefused {
		return refusal{v1alpha1.ReasonRootImage, "the image runs as root or as a user without a number, which this platform refuses: " +
			"give it a USER that is a number other than 0"}
	}
	if err := r.claim(ctx, app); err != nil {
		return err
	}

	objs, err := render(app, user, r.site)
	if err != nil {
		return err
	}
	for _, obj := range objs {
		if err := r.mayOwn(ctx, app, obj); err != nil {
			return err
		}
	}
	if err := r.applyAll(ctx, objs); err != nil {
		return err
	}
	if err := r.prune(ctx, app, objs); err != nil {
		return err
	}
	revision, err := r.record(ctx, app, rendering{app: app}.meta(""))
	if err != nil {
		return err
	}

	for _, obj := range objs {
		switch obj := obj.(type) {
		case *appsv1.Deployment:
			o.deployment = obj
		case *gatewayv1.HTTPRoute:
			o.routes = append(o.routes, obj)
		case *gatewayv1.ListenerSet:
			o.listeners = obj
		}
	}
	hosts := hostsOf(app, r.site.Domain)
	st := &app.Status
	st.Hosts, st.URL = hosts, "https://"+hosts[0]
	st.Image, st.Revision = app.Spec.Image, revision.Revision
	st.Selector = metav1.FormatLabelSelector(o.deployment.Spec.Selector)
	judge(app, o)
	if readyReason(app) == v1alpha1.ReasonReady {
		return r.praise(ctx, revision)
	}
	return nil
}

// claim takes the App's host names, all or none.
func (r *reconciler) claim(ctx context.Context, app *v1alpha1.App) error {
	hosts := hostsOf(app, r.site.Domain)
	var problems []string
	for _, h := range hosts {
		if why := forbidden(h, app.Namespace, r.site.Domain, config(r.site).Reserved); why != "" {
			problems = append(problems, why)
		}
	}
	if len(problems) > 0 {
		return refusal{v1alpha1.ReasonHostForbidden, strings.Join(problems, "; ")}
	}
	var failed error
	conflicts := r.claims.take(app, hosts, func(host string) (holder, bool) {
		h, ok, err := r.rival(ctx, app, host)
		failed = errors.Join(failed, err)
		return h, ok
	})
	if failed != nil {
		return failed
	}
	for _, c := range conflicts {
		problems = append(problems, c.message())
	}
	if len(problems) > 0 {
		return refusal{v1alpha1.ReasonHostTaken, strings.Join(problems, "; ")}
	}
	return nil
}

// rival returns who has a better right than app to a host that no App holds:
// a route made by hand, or an older App that asks for it.
func (r *reconciler) rival(ctx context.Context, app *v1alpha1.App, host string) (holder, bool, error) {
	var routes gatewayv1.HTTPRouteList
	if err := r.client.List(ctx, &routes, client.MatchingFields{indexHost: host}); err != nil {
		return holder{}, false, fmt.Errorf("list routes for %s: %w", host, err)
	}
	for _, route := range routes.Items {
		if owner := metav1.GetControllerOf(&route); owner == nil || owner.Kind != "App" {
			return holder{kind: "route", namespace: route.Namespace, name: route.Name}, true, nil
		}
	}
	var others v1alpha1.AppList
	if err := r.client.List(ctx, &others, client.MatchingFields{indexHost: host}); err != nil {
		return holder{}, false, fmt.Errorf("list apps for %s: %w", host, err)
	}
	for i := range others.Items {
		other := &others.Items[i]
		same := other.Namespace == app.Namespace && other.Name == app.Name
		if !same && other.DeletionTimestamp == nil && older(other, app) {
			return holderOf(other), true, nil
		}
	}
	return holder{}, false, nil
}
