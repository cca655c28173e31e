package client

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// Failure is why a version of an App does not run.
type Failure struct {
	App     *v1alpha1.App
	Reason  string // of the condition Ready, or "Timeout"
	Message string

	// Refused means that nothing of the change was carried out; otherwise new
	// copies were started.
	Refused bool
}

// NoImage tells whether the copies do not run because their image cannot be had.
func (f *Failure) NoImage() bool {
	return kin(f.Reason) == "ImagePullBackOff" || f.Reason == "InvalidImageName"
}

// pullCause begins what a registry, or the way to it, said, in the kubelet's
// long story of a pull.
var pullCause = regexp.MustCompile(`(?:failed to do request: \w+ "[^"]*": |failed to resolve reference "[^"]*": )`)

// Error explains the failure to a person, in one line.
func (f *Failure) Error() string {
	if f.NoImage() {
		cause := f.Message
		if all := pullCause.FindAllStringIndex(cause, -1); len(all) > 0 {
			cause = cause[all[len(all)-1][1]:]
		}
		return fmt.Sprintf("app %q: image %q cannot be pulled: %s: check its name; images that are here are listed by: emerald registry list",
			f.App.Name, f.App.Spec.Image, cause)
	}
	return fmt.Sprintf("app %q: %s: %s", f.App.Name, f.Reason, f.Message)
}

// refusals are the reasons for which the controller changes nothing.
var refusals = []string{
	v1alpha1.ReasonHostTaken, v1alpha1.ReasonHostForbidden, v1alpha1.ReasonNameTaken, v1alpha1.ReasonRootImage,
}

// patience is how long a reason may last before the app is given up on, for
// those that seldom heal by themselves. A reason that is not here is waited for
// until the caller's deadline.
func patience(reason string) (time.Duration, bool) {
	switch reason {
	case "InvalidImageName", "ErrImageNeverPull", v1alpha1.ReasonDeadline:
		return 0, true
	case v1alpha1.ReasonRefused:
		// Quota is freed when a copy of the old version goes.
		return 5 * time.Second, true
	case "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
		return 10 * time.Second, true
	case "ErrImagePull", "ImagePullBackOff":
		return 20 * time.Second, true
	case "Exited", "CrashLoopBackOff":
		// Apps that wait for their database by ending get a few tries.
		return 30 * time.Second, true
	}
	return 0, false
}

// kin makes one of the reasons that alternate while the same thing goes wrong.
func kin(reason string) string {
	switch reason {
	case "ErrImagePull":
		return "ImagePullBackOff"
	case "Exited", "RunContainerError":
		return "CrashLoopBackOff"
	}
	return reason
}

// Wait follows a change of an App until its generation runs everywhere and
// returns the App as it then is. show is called with each state on the way. It
// returns a *Failure when the change was refused or its copies cannot run, and
// when ctx has a deadline and it passes; ctx.Err() when ctx is cancelled.
func (c *Client) Wait(ctx context.Context, app *v1alpha1.App, show func(*v1alpha1.App)) (*v1alpha1.App, error) {
	last := app
	var since time.Time // when the present trouble began
	var trouble string
	wake := time.NewTimer(time.Hour)
	defer wake.Stop()
	err := c.follow(ctx, client.ObjectKeyFromObject(app), wake.C, func(now *v1alpha1.App) (bool, error) {
		if now == nil || now.UID != app.UID {
			return false, fmt.Errorf("app %q was deleted meanwhile", app.Name)
		}
		last = now
		show(now)
		ready := meta.FindStatusCondition(now.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || now.Status.ObservedGeneration < app.Generation {
			return false, nil
		}
		if ready.Status == metav1.ConditionTrue {
			return true, nil
		}
		failure := &Failure{App: now, Reason: ready.Reason, Message: ready.Message, Refused: slices.Contains(refusals, ready.Reason)}
		if failure.Refused {
			return false, failure
		}
		limit, hopeless := patience(ready.Reason)
		if !hopeless {
			// Between two failures an app looks as if it began anew.
			return false, nil
		}
		if kin(ready.Reason) != trouble {
			trouble, since = kin(ready.Reason), time.Now()
		}
		left := limit - time.Since(since)
		if left <= 0 {
			return false, failure
		}
		wake.Reset(left)
		return false, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return last, &Failure{App: last, Reason: "Timeout", Message: lateMessage(last, app.Generation)}
	}
	return last, err
}

// lateMessage says what an App was waiting for when time was up.
func lateMessage(app *v1alpha1.App, generation int64) string {
	ready := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || app.Status.ObservedGeneration < generation {
		return "the apps controller did not answer: see: emerald status"
	}
	if ready.Reason == v1alpha1.ReasonRollingOut {
		check := fmt.Sprintf("nothing accepts connections on port %d: does the app listen on $PORT? if it listens elsewhere: emerald deploy --port N", app.Spec.Port)
		if h := app.Spec.Health; h != nil && h.Path != "" {
			check = fmt.Sprintf("GET %s gets no good answer: see: emerald app logs %s", h.Path, app.Name)
		}
		return ready.Message + ": " + check
	}
	return ready.Reason + ": " + ready.Message
}

// follow calls see with the App of that key, nil when there is none, now and
// after each change or tick, until see returns true or an error.
func (c *Client) follow(ctx context.Context, key client.ObjectKey, tick <-chan time.Time, see func(*v1alpha1.App) (bool, error)) error {
	var heard, refused time.Time // from the server, last; by it, first since then
	for {
		done, err := c.followOnce(ctx, key, tick, func(app *v1alpha1.App) (bool, error) {
			heard, refused = time.Now(), time.Time{}
			return see(app)
		})
		if apierrors.IsForbidden(err) && !heard.IsZero() {
			// A server that has just started refuses everybody until it has
			// read the roles.
			if refused.IsZero() {
				refused = time.Now()
			}
			if time.Since(refused) < settling {
				err = pause(ctx)
			}
		}
		if done || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// settling is how long an API server may take to read the roles.
const settling = 15 * time.Second

// followOnce is one watch, which the API server ends now and then.
func (c *Client) followOnce(ctx context.Context, key client.ObjectKey, tick <-chan time.Time, see func(*v1alpha1.App) (bool, error)) (bool, error) {
	var list v1alpha1.AppList
	only := []client.ListOption{client.InNamespace(key.Namespace), client.MatchingFields{"metadata.name": key.Name}}
	if err := c.api.List(ctx, &list, only...); err != nil {
		return false, c.watchError(ctx, key, err)
	}
	var app *v1alpha1.App
	if len(list.Items) > 0 {
		app = &list.Items[0]
	}
	if done, err := see(app); done || err != nil {
		return done, err
	}
	w, err := c.api.Watch(ctx, &v1alpha1.AppList{}, append(only, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.ResourceVersion}})...)
	if err != nil {
		return false, c.watchError(ctx, key, err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-tick:
		case e, open := <-w.ResultChan():
			if !open || e.Type == watch.Error {
				return false, nil
			}
			app, _ = e.Object.(*v1alpha1.App)
			if e.Type == watch.Deleted {
				app = nil
			}
		}
		if done, err := see(app); done || err != nil {
			return done, err
		}
	}
}

// watchError decides whether to go on after the API server could not be asked:
// while it restarts, yes, until the caller's deadline.
func (c *Client) watchError(ctx context.Context, key client.ObjectKey, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if status := apierrors.APIStatus(nil); errors.As(err, &status) && !apierrors.IsServerTimeout(err) && !apierrors.IsServiceUnavailable(err) &&
		!apierrors.IsTooManyRequests(err) && !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		return fmt.Errorf("watch app %q: %w", key.Name, explain(err))
	}
	return pause(ctx)
}

// pause waits a moment before the API server is asked again.
func pause(ctx context.Context) error {
	t := time.NewTimer(500 * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// gone waits until an App that was deleted is no more, and at most for the given
// time: Kubernetes waits without end for whoever has put a finalizer on it.
func (c *Client) gone(ctx context.Context, app *v1alpha1.App, within time.Duration) error {
	late := errors.New("it took too long")
	bound, cancel := context.WithTimeoutCause(ctx, within, late)
	defer cancel()
	left := app
	err := c.follow(bound, client.ObjectKeyFromObject(app), nil, func(now *v1alpha1.App) (bool, error) {
		if now == nil || now.UID != app.UID {
			return true, nil
		}
		left = now
		return false, nil
	})
	if ctx.Err() == nil && err != nil && errors.Is(context.Cause(bound), late) {
		return fmt.Errorf("it is still there after %s: %s: the deletion goes on; see what the platform lacks with: emerald status, and what is left with: emerald kubectl -n %s get app %s -o yaml",
			within, whoHolds(left), app.Namespace, app.Name)
	}
	return err
}

// whoHolds says what keeps an App from going.
func whoHolds(app *v1alpha1.App) string {
	var own, others []string
	for _, f := range app.Finalizers {
		if f == metav1.FinalizerOrphanDependents || f == metav1.FinalizerDeleteDependents {
			own = append(own, f)
		} else {
			others = append(others, f)
		}
	}
	switch {
	case len(others) > 0:
		return "whoever put the finalizers " + strings.Join(others, ", ") + " on it has not removed them"
	case len(own) > 0:
		return "Kubernetes' garbage collector has not dealt with what belongs to it (finalizer " + strings.Join(own, ", ") + ")"
	}
	return "the API server does not say that it is gone"
}

// LastWords returns what the App's failing copy said last, at most n lines: its
// log, or what Kubernetes has to say where it never started. It is empty when
// there is nothing to tell.
func (c *Client) LastWords(ctx context.Context, app *v1alpha1.App, n int64) []string {
	if ready := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady); ready != nil && kin(ready.Reason) == "ImagePullBackOff" {
		return nil // the reason has said it all
	}
	pods, err := c.Pods(ctx, app)
	if err != nil {
		return nil
	}
	for i := range slices.Backward(pods) {
		pod := &pods[i]
		if pod.DeletionTimestamp != nil || podReady(pod) {
			continue
		}
		if lines := c.tail(ctx, pod, n); len(lines) > 0 {
			return lines
		}
		return c.warnings(ctx, pod)
	}
	return nil
}

func podReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// tail returns the end of the log of a pod's app, of its former life where the
// present one has said nothing.
func (c *Client) tail(ctx context.Context, pod *corev1.Pod, n int64) []string {
	for _, previous := range []bool{false, true} {
		limit := int64(64 << 10)
		raw, err := c.core.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{
			Container: "app", TailLines: &n, LimitBytes: &limit, Previous: previous,
		}).DoRaw(ctx)
		if text := strings.TrimRight(string(raw), "\n"); err == nil && text != "" {
			return strings.Split(text, "\n")
		}
	}
	return nil
}

// warnings returns the warnings Kubernetes recorded about a pod, each once.
func (c *Client) warnings(ctx context.Context, pod *corev1.Pod) []string {
	events, err := c.core.CoreV1().Events(pod.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.uid=" + string(pod.UID) + ",type=" + corev1.EventTypeWarning,
	})
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range events.Items {
		line := e.Reason + ": " + strings.Join(strings.Fields(e.Message), " ")
		if !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return out
}
