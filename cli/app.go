package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/batteries/apps/client"
)

// appCommand is what the commands about apps have in common.
type appCommand struct {
	env       *env
	namespace string
	output    string
}

func newAppCommand(e *env) *cobra.Command {
	a := &appCommand{env: e}
	cmd := &cobra.Command{
		Use:     "app",
		Aliases: []string{"apps"},
		Short:   "See and manage what is deployed",
	}
	cmd.PersistentFlags().StringVarP(&a.namespace, "namespace", "n", "", "the namespace the app is in")
	cmd.AddCommand(a.list(), a.show(), a.logs(), a.scale(), a.rollback(), a.delete(), a.eject())
	e.explainSilence(cmd)
	return cmd
}

// open returns a client and the namespace the user means.
func (a *appCommand) open() (*client.Client, string, error) {
	if err := checkOutput(a.output); err != nil {
		return nil, "", err
	}
	kube, err := a.env.restConfig()
	if err != nil {
		return nil, "", err
	}
	c, err := client.New(kube)
	if err != nil {
		return nil, "", err
	}
	if a.namespace != "" {
		return c, a.namespace, nil
	}
	return c, a.env.namespace(), nil
}

// complete offers the names of apps to the shell.
func (a *appCommand) complete(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, namespace, err := a.open()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	apps, err := c.List(cmd.Context(), namespace)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for i := range apps {
		names = append(names, apps[i].Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *appCommand) jsonFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&a.output, "output", "o", "", `"json" for a machine to read`)
}

func (a *appCommand) json(v any) error {
	enc := json.NewEncoder(a.env.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (a *appCommand) list() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List apps", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, namespace, err := a.open()
			if err != nil {
				return err
			}
			if all {
				namespace = ""
			}
			apps, err := c.List(cmd.Context(), namespace)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(v1alpha1.AppList{
					TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "AppList"}, Items: append([]v1alpha1.App{}, apps...),
				})
			}
			if len(apps) == 0 {
				fmt.Fprintln(a.env.err, "there are no apps here yet: make one with: emerald deploy")
				return nil
			}
			t := table(a.env.out, all)
			t.row("NAMESPACE", "NAME", "URL", "READY", "COPIES", "REVISION", "AGE")
			for i := range apps {
				app := &apps[i]
				t.row(app.Namespace, app.Name, app.Status.URL, readiness(app), copiesOf(app),
					strconv.FormatInt(app.Status.Revision, 10), age(app.CreationTimestamp.Time))
			}
			return t.Flush()
		},
	}
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "of all namespaces")
	a.jsonFlag(cmd)
	return cmd
}

// columns is a table whose first column may be left out.
type columns struct {
	*tabwriter.Writer
	first bool
}

func table(w io.Writer, first bool) columns {
	return columns{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0), first}
}

func (t columns) row(cells ...string) {
	if !t.first {
		cells = cells[1:]
	}
	fmt.Fprintln(t, strings.Join(cells, "\t"))
}

// readiness says in a word whether an app is as it should be.
func readiness(app *v1alpha1.App) string {
	c := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case app.DeletionTimestamp != nil:
		return "Deleting"
	case c == nil:
		return "Unknown"
	case c.Status == metav1.ConditionTrue && c.Reason == v1alpha1.ReasonReady:
		return "yes"
	}
	return c.Reason
}

func copiesOf(app *v1alpha1.App) string {
	return fmt.Sprintf("%d/%d", app.Status.ReadyReplicas, app.Status.Replicas)
}

func age(t time.Time) string { return duration.HumanDuration(time.Since(t)) }

func (a *appCommand) logs() *cobra.Command {
	var o client.LogOptions
	cmd := &cobra.Command{
		Use: "logs NAME", Short: "Show what an app's copies print", Args: exactly("an app", "emerald app list"), ValidArgsFunction: a.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, namespace, err := a.open()
			if err != nil {
				return err
			}
			app, err := c.Get(cmd.Context(), namespace, args[0])
			if err != nil {
				return err
			}
			out, silent := bufio.NewWriter(a.env.out), true
			defer out.Flush()
			prefix := app.Name + "-"
			err = c.Logs(cmd.Context(), app, o, func(pod, text string) error {
				silent = false
				fmt.Fprintf(out, "%s | %s\n", strings.TrimPrefix(pod, prefix), text)
				if o.Follow {
					return out.Flush()
				}
				return nil
			})
			if err == nil && silent {
				fmt.Fprintf(a.env.err, "%s has printed nothing: what it does is in: emerald app show %s%s\n", app.Name, app.Name, inNamespace(app))
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.Follow, "follow", "f", false, "go on as more is printed, also by new copies")
	f.BoolVarP(&o.Previous, "previous", "p", false, "of the copies' life before their last restart")
	f.Int64Var(&o.Tail, "tail", 200, "lines of each copy; -1 for all")
	f.DurationVar(&o.Since, "since", 0, "only what is not older than this, for example 10m")
	return cmd
}

func (a *appCommand) scale() *cobra.Command {
	timeout := 5 * time.Minute
	cmd := &cobra.Command{
		Use: "scale NAME COPIES", Short: "Set how many copies of an app run", Args: exactly("an app and how many copies it shall have", "emerald app list"), ValidArgsFunction: a.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.ParseInt(args[1], 10, 32)
			if err != nil || n < 0 || n > 1000 {
				return fmt.Errorf("scale app %q to %q: give a number from 0 to 1000", args[0], args[1])
			}
			c, namespace, err := a.open()
			if err != nil {
				return err
			}
			d, err := c.Scale(cmd.Context(), namespace, args[0], int32(n))
			if err != nil {
				return err
			}
			_, err = followRollout(cmd.Context(), a.env, c, d, timeout)
			return err
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait until they are healthy")
	return cmd
}

func (a *appCommand) rollback() *cobra.Command {
	timeout, to := 5*time.Minute, int64(0)
	cmd := &cobra.Command{
		Use: "rollback NAME", Short: "Return an app to an earlier revision", Args: exactly("an app", "emerald app list"), ValidArgsFunction: a.complete,
		Long: "Rollback returns an app, its image and settings, to the last earlier revision that\nran healthily, or to the one given with --to. `emerald app show` lists them.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, namespace, err := a.open()
			if err != nil {
				return err
			}
			d, revision, err := c.Rollback(cmd.Context(), namespace, args[0], to)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.env.err, "%s returns to revision %d (%s)\n", args[0], revision.Number, shortImage(revision.Image))
			app, err := followRollout(cmd.Context(), a.env, c, d, timeout)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.env.out, app.Status.URL)
			return nil
		},
	}
	cmd.Flags().Int64Var(&to, "to", 0, "the revision to return to")
	cmd.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait until it is healthy")
	return cmd
}

func (a *appCommand) delete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete NAME", Aliases: []string{"rm"}, Short: "Remove an app and all it is made of", Args: exactly("an app", "emerald app list"), ValidArgsFunction: a.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, namespace, err := a.open()
			if err != nil {
				return err
			}
			app, err := c.Get(cmd.Context(), namespace, args[0])
			if err != nil {
				return err
			}
			if err := a.env.confirm(yes, fmt.Sprintf("Delete %s (%s) and its history?", app.Name, app.Status.URL)); err != nil {
				return fmt.Errorf("delete app %q: %w", app.Name, err)
			}
			if err := c.Delete(cmd.Context(), app); err != nil {
				return err
			}
			fmt.Fprintf(a.env.err, "%s is gone\n", app.Name)
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (a *appCommand) eject() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "eject NAME", Short: "Keep what an app is made of and forget the app", Args: exactly("an app", "emerald app list"), ValidArgsFunction: a.complete,
		Long: "Eject removes the App and leaves its Deployment, Service, routes and the rest running,\nowned by nobody: plain Kubernetes objects to keep in files of your own.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, namespace, err := a.open()
			if err != nil {
				return err
			}
			if _, err := c.Get(cmd.Context(), namespace, args[0]); err != nil {
				return err
			}
			if err := a.env.confirm(yes, fmt.Sprintf("Eject %s? Emerald will not manage it any more.", args[0])); err != nil {
				return fmt.Errorf("eject app %q: %w", args[0], err)
			}
			if err := c.Eject(cmd.Context(), namespace, args[0]); err != nil {
				return err
			}
			fmt.Fprintf(a.env.err, "%s is yours: emerald kubectl -n %s get deploy,svc,sa,pdb,httproute,listenerset -l %s=%s -o yaml\n",
				args[0], namespace, v1alpha1.LabelApp, args[0])
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
