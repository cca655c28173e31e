package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/batteries/apps/client"
)

// followRollout waits for a change of an app, shows how it goes, and explains
// how it ended. Whatever was refused is taken back.
func followRollout(ctx context.Context, e *env, apps *client.Client, d *client.Deployment, timeout time.Duration) (*v1alpha1.App, error) {
	view := &rolloutView{out: e.err, live: isTerminal(e.err), name: d.App.Name}
	waitCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	app, err := apps.Rollout(waitCtx, d, view.show, func(port int32) {
		view.line(fmt.Sprintf("nobody chose a port and the app listens on %d: using that", port))
	})
	view.end()

	var failure *client.Failure
	switch {
	case err == nil:
		if err := apps.Settle(ctx, app); err != nil {
			view.line("note: " + err.Error())
		}
		return app, nil
	case errors.As(err, &failure) && (failure.Refused || failure.NoImage()):
		if undo := apps.Undo(ctx, d); undo != nil {
			return nil, errors.Join(err, undo)
		}
		return nil, fmt.Errorf("%w (nothing was changed)", err)
	case errors.As(err, &failure):
		explainFailure(ctx, e, apps, d, failure)
		return nil, err
	case ctx.Err() != nil:
		return nil, exitError{code: 130, err: fmt.Errorf(
			"stopped waiting: the rollout of %q goes on: see: emerald app show %s%s", d.App.Name, d.App.Name, inNamespace(d.App))}
	}
	return nil, err
}

// explainFailure shows the failing copy's last words and what to do next.
func explainFailure(ctx context.Context, e *env, apps *client.Client, d *client.Deployment, failure *client.Failure) {
	name, ns := d.App.Name, inNamespace(d.App)
	if words := apps.LastWords(ctx, failure.App, 20); len(words) > 0 {
		fmt.Fprintf(e.err, "last lines of %s:\n", name)
		for _, w := range words {
			fmt.Fprintf(e.err, "  %s\n", w)
		}
	}
	if d.Previous != nil && failure.App.Status.ReadyReplicas > 0 {
		fmt.Fprintf(e.err, "%s keeps serving its former version; correct it and deploy again, or go back: emerald app rollback %s%s\n", name, name, ns)
		return
	}
	fmt.Fprintf(e.err, "correct it and deploy again, look closer: emerald app show %s%s, or remove it: emerald app delete %s%s\n", name, ns, name, ns)
}

// inNamespace returns the flag that commands about the app need.
func inNamespace(app *v1alpha1.App) string {
	if app.Namespace == "default" {
		return ""
	}
	return " --namespace " + app.Namespace
}

// rolloutView shows a rollout: on a terminal one line that changes, elsewhere a
// line for each change.
type rolloutView struct {
	out   io.Writer
	live  bool
	name  string
	last  string
	drawn bool
}

func (v *rolloutView) show(app *v1alpha1.App) {
	text := "waits for the apps controller"
	if c := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady); c != nil && app.Status.ObservedGeneration >= app.Generation {
		text = c.Message
		switch c.Reason {
		case v1alpha1.ReasonReady, v1alpha1.ReasonRollingOut, v1alpha1.ReasonStopped:
		default:
			text = c.Reason + ": " + c.Message
		}
	}
	if text == v.last {
		return
	}
	v.last = text
	if v.live {
		fmt.Fprintf(v.out, "\r\x1b[2K  %s: %s", v.name, clip(text, 100))
		v.drawn = true
		return
	}
	fmt.Fprintf(v.out, "%s: %s\n", v.name, text)
}

// line prints a line that stays.
func (v *rolloutView) line(text string) {
	v.end()
	fmt.Fprintln(v.out, strings.TrimSpace(text))
}

// end leaves the line that changes.
func (v *rolloutView) end() {
	if v.drawn {
		fmt.Fprintln(v.out)
		v.drawn = false
	}
}
