package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/battery/install"
	"github.com/emerald-platform/emerald/picture"
)

func newStatusCommand(e *env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what works, and what is waited for",
		Long: `Show what works, and what is waited for: the machines, the batteries, and the
picture of the 43 features with the state of each:

  ✓ proven    every proof passed on this cluster, with this version
  ● ready     it is there; prove it with: emerald verify
  ◐ partly    what there is works, a part is still to come
  ✗ failed    a proof failed
  · not yet

The exit code is 0 when the platform is ready, and 1 when it is not or does not
answer.`,
		Example: "  emerald status\n  emerald status -o json | jq .batteries",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			s, err := e.lookAround(cmd.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				err = json.NewEncoder(e.out).Encode(s)
			} else {
				err = s.print(e.out, lookOf(e.out), time.Now())
			}
			if err == nil && !s.Ready {
				return exitError{code: 1}
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "output format: json")
	return cmd
}

// overview is what `emerald status` shows.
type overview struct {
	Version    string                   `json:"version"`
	Kubernetes string                   `json:"kubernetes"`
	Server     string                   `json:"server"`
	Domain     string                   `json:"domain"`
	Ready      bool                     `json:"ready"`
	Refused    string                   `json:"refused,omitempty"`  // why the settings are not in force
	Starting   string                   `json:"starting,omitempty"` // what this machine does to come up
	Machines   []machineState           `json:"machines"`
	Batteries  []v1alpha1.BatteryStatus `json:"batteries"`
	Picture    []picture.Entry          `json:"picture"`
}

type machineState struct {
	Name    string `json:"name"`
	Ready   bool   `json:"ready"`
	Message string `json:"message,omitempty"`
}

// lookAround asks the cluster for all of it at once.
func (e *env) lookAround(ctx context.Context) (*overview, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cfg, err := e.restConfig()
	if err != nil {
		return nil, err
	}
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	s := &overview{Server: cfg.Host, Machines: []machineState{}, Batteries: []v1alpha1.BatteryStatus{}}
	var platform v1alpha1.Platform
	var report picture.Report
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		v, err := kube.Discovery().ServerVersion()
		if err == nil {
			s.Kubernetes = v.GitVersion
		}
		return err
	})
	g.Go(func() error {
		nodes, err := kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err == nil {
			s.Machines = machines(nodes.Items)
		}
		return err
	})
	g.Go(func() (err error) {
		report, err = picture.Load(ctx, kube)
		return err
	})
	g.Go(func() error { return getPlatform(ctx, cfg, &platform) })
	if err := g.Wait(); err != nil {
		return nil, explain(context.WithoutCancel(ctx), cfg, err)
	}
	s.Version, s.Domain = platform.Status.Version, platform.Status.Domain
	s.Batteries = append(s.Batteries, platform.Status.Batteries...)
	s.Ready = meta.IsStatusConditionTrue(platform.Status.Conditions, v1alpha1.ConditionReady)
	if c := meta.FindStatusCondition(platform.Status.Conditions, v1alpha1.ConditionAccepted); c != nil && c.Status == metav1.ConditionFalse {
		s.Refused = c.Message
	}
	for _, m := range s.Machines {
		s.Ready = s.Ready && m.Ready
	}
	// What the cluster says is from the machine's former life while it starts.
	if own, err := isOwn(defaultDirs(), cfg.Host); err == nil && own {
		s.Starting = comingUp(context.WithoutCancel(ctx))
		s.Ready = s.Ready && s.Starting == ""
	}
	s.Picture = picture.Compute(e.batteries, s.Batteries, report, s.Version)
	return s, nil
}

// getPlatform reads the Platform object.
func getPlatform(ctx context.Context, cfg *rest.Config, into *v1alpha1.Platform) error {
	c, err := objects(cfg)
	if err != nil {
		return err
	}
	err = c.Get(ctx, client.ObjectKey{Name: v1alpha1.PlatformName}, into)
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return fmt.Errorf("read the Platform: %w", install.ErrNotInstalled)
	}
	return err
}

func machines(nodes []corev1.Node) []machineState {
	out := []machineState{}
	for _, n := range nodes {
		m := machineState{Name: n.Name, Message: "has not reported yet"}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady {
				m.Ready, m.Message = c.Status == corev1.ConditionTrue, c.Message
			}
		}
		if m.Ready {
			m.Message = ""
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b machineState) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (s *overview) print(w io.Writer, look picture.Look, now time.Time) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s, Kubernetes %s, domain %s\n", look.Bold("Emerald"), s.Version, s.Kubernetes, s.Domain)
	b.WriteString(s.machineLine(look) + "\n")
	if s.Starting != "" {
		fmt.Fprintf(&b, "%s this machine is coming up: %s: watch it with: emerald up\n", look.Mark(picture.Partly), s.Starting)
	}
	s.batteryLines(&b, look, now)
	if s.Refused != "" {
		fmt.Fprintf(&b, "%s settings: %s\n  change them with: emerald kubectl edit platform emerald\n", look.Mark(picture.Failed), s.Refused)
	}
	b.WriteByte('\n')
	if err := picture.Render(&b, s.Picture, look); err != nil {
		return err
	}
	b.WriteString(s.provenLine(now))
	_, err := io.WriteString(w, b.String())
	return err
}

func (s *overview) machineLine(look picture.Look) string {
	var down []string
	names := make([]string, len(s.Machines))
	for i, m := range s.Machines {
		names[i] = m.Name
		if !m.Ready {
			down = append(down, m.Name+": "+m.Message)
		}
	}
	switch {
	case len(s.Machines) == 0:
		return look.Mark(picture.Missing) + " no machine has joined yet"
	case len(down) > 0:
		return fmt.Sprintf("%s %d of %s ready: %s", look.Mark(picture.Failed), len(s.Machines)-len(down),
			plural(len(s.Machines), "machine"), strings.Join(down, "; "))
	case len(names) > 5:
		names = append(names[:5], "…")
	}
	return fmt.Sprintf("%s %s ready: %s", look.Mark(picture.Proven), plural(len(s.Machines), "machine"), strings.Join(names, ", "))
}

// batteryLines says how many batteries are ready, and what the others wait for.
func (s *overview) batteryLines(b *strings.Builder, look picture.Look, now time.Time) {
	var waiting []v1alpha1.BatteryStatus
	var off []string
	ready := 0
	for _, st := range s.Batteries {
		switch {
		case st.Phase == v1alpha1.PhaseOff:
			off = append(off, st.Name)
		case st.Phase != v1alpha1.PhaseReady:
			waiting = append(waiting, st)
		case st.Name != battery.SystemBattery:
			ready++
		}
	}
	mark := picture.Proven
	if len(waiting) > 0 {
		mark = picture.Partly
	}
	total := ready
	for _, st := range waiting {
		if st.Name != battery.SystemBattery {
			total++
		}
	}
	fmt.Fprintf(b, "%s %d of %s ready", look.Mark(mark), ready, batteryCount(total))
	if len(off) > 0 {
		fmt.Fprintf(b, ", turned off: %s", strings.Join(off, ", "))
	}
	b.WriteByte('\n')
	var rows [][]string
	for _, st := range waiting {
		rows = append(rows, []string{"  " + st.Name, strings.ToLower(string(st.Phase)), ago(now, st.Since.Time), cmp.Or(st.Message, "…")})
	}
	for _, line := range align(rows) {
		b.WriteString(line + "\n")
	}
}

// provenLine says when proofs were last run.
func (s *overview) provenLine(now time.Time) string {
	var last time.Time
	for _, e := range s.Picture {
		for _, r := range e.Proofs {
			if r.Time.After(last) {
				last = r.Time
			}
		}
	}
	if last.IsZero() {
		return "Nothing has been proven on this cluster yet: emerald verify\n"
	}
	return fmt.Sprintf("Last proven %s ago; again with: emerald verify\n", ago(now, last))
}

// ago returns the time since, in the unit that fits.
func ago(now, then time.Time) string {
	d := max(now.Sub(then), 0)
	switch {
	case then.IsZero():
		return "-"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func batteryCount(n int) string {
	if n == 1 {
		return "1 battery"
	}
	return fmt.Sprintf("%d batteries", n)
}
