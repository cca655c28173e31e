package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/battery/install"
	"github.com/emerald-platform/emerald/picture"
)

// Exit codes of `emerald verify` beyond 0.
const (
	exitUnproven = 1 // a claim does not hold
	exitUnrun    = 2 // the proofs could not be run
)

func newVerifyCommand(e *env) *cobra.Command {
	v := verification{env: e}
	cmd := &cobra.Command{
		Use:   "verify [FEATURE|NUMBER|BATTERY]...",
		Short: "Prove on this cluster that the platform keeps its promises",
		Long: `Prove on this cluster that the platform keeps its promises: run the proofs of
the batteries that are on, each of which acts as a user would, from outside, and
also shows that what must not work does not. Proofs clean up after themselves
and can be run at any time, also on a cluster that works for a living.

Results are kept on the cluster; emerald status shows them.

The exit code is 0 when every claim holds, 1 when one does not, and 2 when the
proofs could not be run.`,
		Example: `  emerald verify
  emerald verify DNS "TLS certificates"
  emerald verify registry
  emerald verify -o json | jq '.results[] | select(.passed | not)'`,
		ValidArgsFunction: v.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			return v.run(cmd.Context(), args)
		},
	}
	cmd.Flags().StringVarP(&v.output, "output", "o", "", "output format: json")
	cmd.Flags().DurationVar(&v.each, "timeout", 5*time.Minute, "how long one proof may take")
	cmd.Flags().BoolVarP(&v.verbose, "verbose", "v", false, "print what the proofs log")
	return cmd
}

// verification is one run of `emerald verify`.
type verification struct {
	env     *env
	output  string
	each    time.Duration
	verbose bool
}

func (v *verification) complete(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var out []string
	for _, b := range v.env.batteries {
		if len(b.Proofs) > 0 {
			out = append(out, b.Name+"\t"+b.Doc)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (v *verification) run(ctx context.Context, words []string) error {
	if err := checkOutput(v.output); err != nil {
		return exitError{exitUnrun, err}
	}
	cases, version, client, err := v.prepare(ctx, words)
	if err != nil {
		return exitError{exitUnrun, err}
	}
	log := slog.New(slog.DiscardHandler)
	if v.verbose {
		log = slog.New(slog.NewTextHandler(v.env.err, nil))
	}
	began := time.Now()
	progress := newProofView(v.env.err, cases)
	results := picture.Prove(ctx, cases, version, v.each, log, progress.done)
	progress.end()
	if ctx.Err() != nil {
		return exitError{exitUnrun, fmt.Errorf("prove: %w: nothing is kept of this run", context.Cause(ctx))}
	}
	if err := picture.Save(ctx, client, v.env.batteries, results); err != nil {
		fmt.Fprintf(v.env.err, "the results are not kept on the cluster: %v\n", err)
	}
	if v.output == "json" {
		err = json.NewEncoder(v.env.out).Encode(map[string]any{"version": version, "results": v.explained(results)})
	} else {
		err = v.print(v.env.out, lookOf(v.env.out), results, time.Since(began))
	}
	if err == nil && picture.Failures(results) > 0 {
		return exitError{code: exitUnproven}
	}
	return err
}

// explained is a result with what to type next when it is no good one.
type explained struct {
	picture.Result
	Next []string `json:"next,omitempty"`
}

func (v *verification) explained(results []picture.Result) []explained {
	out := make([]explained, len(results))
	for i, r := range results {
		out[i].Result = r
		if !r.Passed {
			out[i].Next = v.next(r.Battery)
		}
	}
	return out
}

// prepare finds the cluster and the proofs to be run there.
func (v *verification) prepare(ctx context.Context, words []string) ([]picture.Case, string, kubernetes.Interface, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cfg, err := v.env.restConfig()
	if err != nil {
		return nil, "", nil, err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, "", nil, fmt.Errorf("make a client: %w", err)
	}
	sites, err := install.Sites(ctx, cfg, v.env.batteries)
	if err != nil {
		return nil, "", nil, explain(context.WithoutCancel(ctx), cfg, err)
	}
	var p v1alpha1.Platform
	if err := getPlatform(ctx, cfg, &p); err != nil {
		return nil, "", nil, explain(context.WithoutCancel(ctx), cfg, err)
	}
	cases, err := picture.Choose(picture.Cases(v.env.batteries, sites), words)
	if err == nil && len(cases) == 0 {
		err = errors.New("prove: the batteries that are on have no proofs: see them with: emerald batteries")
	}
	return cases, p.Status.Version, client, err
}

// proofView shows how proofs get on: on a terminal one line that changes,
// elsewhere a line for each proof that has ended.
type proofView struct {
	out     io.Writer
	live    bool
	look    picture.Look
	total   int
	ended   int
	failed  int
	running []string // claims
}

func newProofView(out io.Writer, cases []picture.Case) *proofView {
	v := &proofView{out: out, live: isTerminal(out), look: lookOf(out), total: len(cases)}
	for _, c := range cases {
		v.running = append(v.running, c.Proof.Feature+": "+c.Proof.Claim)
	}
	v.draw()
	return v
}

func (v *proofView) done(r picture.Result) {
	v.ended++
	if !r.Passed {
		v.failed++
	}
	for i, name := range v.running {
		if name == r.Feature+": "+r.Claim {
			v.running = append(v.running[:i], v.running[i+1:]...)
			break
		}
	}
	if v.live {
		v.draw()
		return
	}
	word := "holds"
	if !r.Passed {
		word = "FAILS"
	}
	fmt.Fprintf(v.out, "%s: %s: %s (%.1fs)\n", word, r.Feature, r.Claim, r.Seconds)
}

func (v *proofView) draw() {
	if !v.live {
		return
	}
	text := fmt.Sprintf("%d of %d proven", v.ended-v.failed, v.total)
	if v.failed > 0 {
		text += fmt.Sprintf(", %d failed", v.failed)
	}
	if len(v.running) > 0 {
		text += ": " + v.running[0]
	}
	fmt.Fprintf(v.out, "\r\x1b[2K%s", clip(text, max(v.look.Width, 40)-1))
}

// end clears the live line.
func (v *proofView) end() {
	if v.live {
		fmt.Fprint(v.out, "\r\x1b[2K")
	}
}

// claimColumn is where claims begin.
const claimColumn = 12

// print prints the table of a run: the claims by feature, and for each
// one that does not hold the cause and what to type next.
func (v *verification) print(w io.Writer, look picture.Look, results []picture.Result, took time.Duration) error {
	width := look.Width
	if width == 0 {
		width = 80
	}
	var b strings.Builder
	feature := ""
	for _, r := range results {
		if r.Feature != feature {
			feature = r.Feature
			fmt.Fprintln(&b, look.Bold(feature))
		}
		state := picture.Proven
		if !r.Passed {
			state = picture.Failed
		}
		claim := picture.Wrap(r.Claim, width-claimColumn, strings.Repeat(" ", claimColumn))
		fmt.Fprintf(&b, "  %s %s %s\n", look.Mark(state), look.Dim(fmt.Sprintf("%6.1fs", r.Seconds)), claim)
		if !r.Passed {
			indent := "\n" + strings.Repeat(" ", claimColumn+len("cause: "))
			fmt.Fprintf(&b, "%*scause: %s\n", claimColumn, "", strings.ReplaceAll(strings.TrimSpace(r.Cause), "\n", indent))
			fmt.Fprintf(&b, "%*snext:  %s\n", claimColumn, "", strings.Join(v.next(r.Battery), indent))
		}
	}
	if failed := picture.Failures(results); failed > 0 {
		fmt.Fprintf(&b, "\n%s %d of %s in %.1fs.\n", look.Mark(picture.Failed), failed, fails(len(results)), took.Seconds())
	} else {
		fmt.Fprintf(&b, "\n%s %s in %.1fs.\n", look.Mark(picture.Proven), holds(len(results)), took.Seconds())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func fails(n int) string { return plural(n, "claim") + " did not hold" }

func holds(n int) string {
	if n == 1 {
		return "The claim held"
	}
	return fmt.Sprintf("All %d claims held", n)
}

// next returns what to type when a proof of a battery fails.
func (v *verification) next(battery string) []string {
	return []string{v.logsOf(battery), "emerald verify " + battery}
}

// logsOf returns the command that shows what a battery has to say.
func (v *verification) logsOf(name string) string {
	namespace, owner, pods := battery.NamespaceOf(name), battery.LabelBattery, name
	for _, b := range v.env.batteries {
		if b.Name == name && b.Where != battery.Own {
			namespace, pods = battery.SystemNamespace, battery.SystemBattery
		}
	}
	return fmt.Sprintf("emerald kubectl logs -n %s -l %s=%s --tail=50", namespace, owner, pods)
}
