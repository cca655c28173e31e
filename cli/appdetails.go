package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/batteries/apps/client"
)

// appDetails is `emerald app show -o json`.
type appDetails struct {
	App     *v1alpha1.App     `json:"app"`
	History []client.Revision `json:"history"`
	Pods    []podLine         `json:"pods"`
}

type podLine struct {
	Name     string    `json:"name"`
	State    string    `json:"state"`
	Ready    bool      `json:"ready"`
	Restarts int32     `json:"restarts"`
	Node     string    `json:"node,omitempty"`
	Created  time.Time `json:"created"`
}

func (a *appCommand) show() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show NAME", Short: "Show one app: its state, copies and history", Args: exactly("an app", "emerald app list"), ValidArgsFunction: a.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, namespace, err := a.open()
			if err != nil {
				return err
			}
			details, err := gather(cmd.Context(), c, namespace, args[0])
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(details)
			}
			return printDetails(a.env.out, details)
		},
	}
	a.jsonFlag(cmd)
	return cmd
}

func gather(ctx context.Context, c *client.Client, namespace, name string) (appDetails, error) {
	app, err := c.Get(ctx, namespace, name)
	if err != nil {
		return appDetails{}, err
	}
	app.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("App"))
	app.ManagedFields = nil
	out := appDetails{App: app, Pods: []podLine{}}
	if out.History, err = c.History(ctx, app); err != nil {
		return out, err
	}
	pods, err := c.Pods(ctx, app)
	if err != nil {
		return out, err
	}
	for i := range pods {
		out.Pods = append(out.Pods, lineOf(&pods[i]))
	}
	return out, nil
}

func lineOf(p *corev1.Pod) podLine {
	line := podLine{Name: p.Name, State: string(p.Status.Phase), Node: p.Spec.NodeName, Created: p.CreationTimestamp.Time}
	for _, s := range p.Status.ContainerStatuses {
		line.Restarts, line.Ready = s.RestartCount, s.Ready
		switch {
		case s.State.Waiting != nil && s.State.Waiting.Reason != "":
			line.State = s.State.Waiting.Reason
		case s.State.Terminated != nil:
			line.State = fmt.Sprintf("Exited(%d)", s.State.Terminated.ExitCode)
		case s.State.Running != nil && !s.Ready:
			line.State = "Unhealthy"
		}
	}
	if p.DeletionTimestamp != nil {
		line.State = "Ending"
	}
	return line
}

func printDetails(w io.Writer, d appDetails) error {
	app := d.App
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, value)
		}
	}
	field("Name", app.Name)
	field("Namespace", app.Namespace)
	field("URL", app.Status.URL)
	for _, domain := range app.Spec.Domains {
		field("", "https://"+string(domain))
	}
	for _, kind := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionRouted} {
		if c := meta.FindStatusCondition(app.Status.Conditions, kind); c != nil {
			state := "yes"
			if c.Status != metav1.ConditionTrue || c.Reason == v1alpha1.ReasonStopped {
				state = fmt.Sprintf("%s: %s", c.Reason, c.Message)
			}
			field(kind, state)
		}
	}
	field("Image", app.Spec.Image)
	field("Port", strconv.Itoa(int(app.Spec.Port)))
	field("Copies", copiesOf(app))
	var names []string
	for _, v := range app.Spec.Env {
		names = append(names, v.Name)
	}
	field("Variables", strings.Join(names, " "))
	if err := t.Flush(); err != nil {
		return err
	}
	if len(d.Pods) > 0 {
		fmt.Fprintln(w)
		t := table(w, true)
		t.row("COPY", "STATE", "RESTARTS", "MACHINE", "AGE")
		for _, p := range d.Pods {
			t.row(p.Name, p.State, strconv.Itoa(int(p.Restarts)), p.Node, age(p.Created))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if len(d.History) > 0 {
		fmt.Fprintln(w)
		t := table(w, true)
		t.row("REVISION", "HEALTHY", "MADE", "IMAGE", "CAUSE")
		for _, r := range d.History {
			number, healthy := strconv.FormatInt(r.Number, 10), "no"
			if r.Current {
				number += " *"
			}
			if r.Healthy {
				healthy = "yes"
			}
			t.row(number, healthy, age(r.Made)+" ago", shortImage(r.Image), r.Cause)
		}
		return t.Flush()
	}
	return nil
}

// shortImage shortens the digest in a reference to what tells versions apart.
func shortImage(ref string) string {
	if at := strings.Index(ref, "@sha256:"); at >= 0 && len(ref) > at+20 {
		return ref[:at+20]
	}
	return ref
}
