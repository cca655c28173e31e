package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/emerald-platform/emerald/battery"
)

func newBatteryShowCommand(e *env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "show BATTERY", Short: "Show one battery: what it gives, and its settings with their defaults",
		Example: "  emerald batteries show registry",
		Args:    exactly("a battery", "emerald batteries"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, b := range sorted(e.batteries) {
				if len(args) == 0 {
					names = append(names, b.Name+"\t"+b.Doc)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			all := e.listBatteries(cmd.Context())
			i := slices.IndexFunc(all, func(l listed) bool { return l.Name == args[0] })
			if i < 0 {
				return fmt.Errorf("there is no battery %q: list all with: emerald batteries", args[0])
			}
			b := e.batteries[slices.IndexFunc(e.batteries, func(b battery.Battery) bool { return b.Name == args[0] })]
			if output == "json" {
				return json.NewEncoder(e.out).Encode(struct {
					listed
					Defaults any `json:"defaults"`
				}{all[i], b.Config})
			}
			return e.printBattery(all[i], b)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func (e *env) printBattery(l listed, b battery.Battery) error {
	fmt.Fprintf(e.out, "%s: %s\n", l.Name, l.Doc)
	for _, line := range [][2]string{
		{"runs", l.Where}, {"needs", strings.Join(l.Needs, ", ")}, {"gives", strings.Join(l.Features, ", ")},
		{"state", strings.TrimSpace(l.State + " " + l.Message)},
	} {
		if line[1] != "" {
			fmt.Fprintf(e.out, "  %-6s %s\n", line[0], line[1])
		}
	}
	if b.Config == nil {
		fmt.Fprintln(e.out, "\nIt has no settings.")
		return nil
	}
	settings := map[string]any{"spec": map[string]any{"batteries": map[string]any{b.Name: map[string]any{"config": b.Config}}}}
	raw, err := yaml.Marshal(settings)
	if err != nil {
		return fmt.Errorf("show the settings of battery %q: %w", b.Name, err)
	}
	_, err = fmt.Fprintf(e.out, "\nIts settings and their defaults, as they are written in the Platform; change them\nwith \"emerald kubectl edit platform emerald\" or \"emerald up --config FILE\":\n\n%s", raw)
	return err
}
