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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
)

func newBatteriesCommand(e *env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "batteries",
		Short: "List what the platform is made of",
		Long: `List what the platform is made of: each battery, where it runs, what it needs
and what you get; and its state, when a cluster answers.

A battery is turned off, or set up, in the one Platform object:

  emerald kubectl edit platform emerald`,
		Example: "  emerald batteries\n  emerald batteries show registry\n  emerald batteries -o json\n  emerald batteries graph",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			all := e.listBatteries(cmd.Context())
			if output == "json" {
				return json.NewEncoder(e.out).Encode(all)
			}
			return printBatteries(e.out, all)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "output format: json")
	cmd.AddCommand(newGraphCommand(e), newBatteryShowCommand(e))
	return cmd
}

// listed is a battery as the command line shows it.
type listed struct {
	Name     string   `json:"name"`
	Doc      string   `json:"doc"`
	Where    string   `json:"where"`
	Needs    []string `json:"needs"`
	Settings []string `json:"settings"`
	Features []string `json:"features"`
	// State is what the cluster says; "" when none answers.
	State   string `json:"state,omitempty"`
	Message string `json:"message,omitempty"`
}

// listBatteries returns the batteries from the ground up.
func (e *env) listBatteries(ctx context.Context) []listed {
	states := e.batteryStates(ctx)
	waves, err := battery.Order(e.batteries)
	if err != nil { // a vendor's list that is not valid is still shown
		waves = [][]battery.Battery{e.batteries}
	}
	out := []listed{}
	for _, b := range slices.Concat(waves...) {
		l := listed{
			Name: b.Name, Doc: b.Doc, Where: b.Where.String(),
			Needs: list(slices.Sorted(slices.Values(b.Needs))), Settings: list(battery.ConfigFields(&b)), Features: []string{},
			State: string(states[b.Name].Phase), Message: states[b.Name].Message,
		}
		for _, p := range b.Proofs {
			if !slices.Contains(l.Features, p.Feature) {
				l.Features = append(l.Features, p.Feature)
			}
		}
		out = append(out, l)
	}
	return out
}

// list makes sure that JSON has a list where there is nothing.
func list(words []string) []string {
	if words == nil {
		return []string{}
	}
	return words
}

// batteryStates returns what the cluster says of each battery, nothing when it
// does not answer soon.
func (e *env) batteryStates(ctx context.Context) map[string]v1alpha1.BatteryStatus {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	cfg, err := e.restConfig()
	if err != nil {
		return nil
	}
	c, err := objects(cfg)
	if err != nil {
		return nil
	}
	var p v1alpha1.Platform
	if err := c.Get(ctx, client.ObjectKey{Name: v1alpha1.PlatformName}, &p); err != nil {
		return nil
	}
	out := map[string]v1alpha1.BatteryStatus{}
	for _, s := range p.Status.Batteries {
		out[s.Name] = s
	}
	return out
}

func printBatteries(w io.Writer, all []listed) error {
	look := lookOf(w)
	rows := [][]string{{"NAME", "RUNS", "NEEDS", "STATE", "WHAT YOU GET"}}
	for _, l := range all {
		rows = append(rows, []string{
			l.Name, l.Where, cmp.Or(strings.Join(l.Needs, ","), "-"), cmp.Or(strings.ToLower(l.State), "-"), l.Doc,
		})
	}
	for _, line := range align(rows) {
		if look.Width > 0 {
			line = clip(line, look.Width)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// align pads every column but the last to its widest cell.
func align(rows [][]string) []string {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	lines := make([]string, len(rows))
	for i, row := range rows {
		var b strings.Builder
		for j, cell := range row {
			b.WriteString(cell)
			if j < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[j]-len([]rune(cell))+2))
			}
		}
		lines[i] = b.String()
	}
	return lines
}

func newGraphCommand(e *env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "graph",
		Short: "Show which battery needs which",
		Example: `  emerald batteries graph
  emerald batteries graph -o dot | dot -Tsvg > batteries.svg
  emerald batteries graph -o mermaid`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			switch output {
			case "":
				return printTree(e.out, e.batteries)
			case "dot":
				return printDot(e.out, e.batteries)
			case "mermaid":
				return printMermaid(e.out, e.batteries)
			case "json":
				edges := map[string][]string{}
				for _, b := range e.batteries {
					edges[b.Name] = slices.Sorted(slices.Values(b.Needs))
				}
				return json.NewEncoder(e.out).Encode(edges)
			}
			return fmt.Errorf("draw the graph: there is no format %q: use dot, mermaid or json", output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "output format: dot, mermaid or json")
	return cmd
}

// printTree draws, for every battery that nobody needs, the tree of what it
// needs. A tree that was drawn before is not drawn again: its root gets an
// ellipsis.
func printTree(w io.Writer, all []battery.Battery) error {
	needs := map[string][]string{}
	needed := map[string]bool{}
	for _, b := range all {
		needs[b.Name] = slices.Sorted(slices.Values(b.Needs))
		for _, n := range b.Needs {
			needed[n] = true
		}
	}
	var out strings.Builder
	drawn := map[string]bool{}
	var draw func(name, prefix string)
	draw = func(name, prefix string) {
		if drawn[name] && len(needs[name]) > 0 {
			out.WriteString(name + " …\n")
			return
		}
		out.WriteString(name + "\n")
		drawn[name] = true
		for i, n := range needs[name] {
			branch, indent := "├─ ", "│  "
			if i == len(needs[name])-1 {
				branch, indent = "└─ ", "   "
			}
			out.WriteString(prefix + branch)
			draw(n, prefix+indent)
		}
	}
	for _, b := range sorted(all) {
		if !needed[b.Name] {
			draw(b.Name, "")
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func sorted(all []battery.Battery) []battery.Battery {
	return slices.SortedFunc(slices.Values(all), func(a, b battery.Battery) int { return cmp.Compare(a.Name, b.Name) })
}

func printDot(w io.Writer, all []battery.Battery) error {
	var out strings.Builder
	out.WriteString("digraph batteries {\n  rankdir=BT\n  node [shape=box]\n")
	for _, b := range sorted(all) {
		fmt.Fprintf(&out, "  %s [tooltip=%q]\n", b.Name, b.Doc)
		for _, n := range slices.Sorted(slices.Values(b.Needs)) {
			fmt.Fprintf(&out, "  %s -> %s\n", b.Name, n)
		}
	}
	out.WriteString("}\n")
	_, err := io.WriteString(w, out.String())
	return err
}

func printMermaid(w io.Writer, all []battery.Battery) error {
	var out strings.Builder
	out.WriteString("graph BT\n")
	for _, b := range sorted(all) {
		fmt.Fprintf(&out, "  %s\n", b.Name)
		for _, n := range slices.Sorted(slices.Values(b.Needs)) {
			fmt.Fprintf(&out, "  %s --> %s\n", b.Name, n)
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}
