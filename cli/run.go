package cli

import (
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/emerald-platform/emerald/battery/host"
)

// newRunCommand is what the pods of the platform run. People do not need it,
// unless they look for what a battery does.
func newRunCommand(e *env) *cobra.Command {
	var o host.Options
	debug := false
	cmd := &cobra.Command{
		Use:    "run BATTERY|controllers|node",
		Short:  "Be the process of a battery, inside its pod",
		Hidden: true,
		Long: `Be the process of a battery, inside its pod.

"controllers" runs all batteries that share the process of the controllers,
under a lease; "node" those that run on every machine. Health and metrics are
served on port 9090: /livez, /readyz, /metrics.`,
		Example: "  emerald run dns\n  emerald run controllers",
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			var out []string
			for _, n := range host.Names(e.batteries) {
				if len(args) == 0 && strings.HasPrefix(n, prefix) {
					out = append(out, n)
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			host.Tune()
			level := slog.LevelInfo
			if debug {
				level = slog.LevelDebug
			}
			o.Batteries, o.What, o.Log = e.batteries, args[0], host.Logger(e.err, level)
			return host.Run(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.SiteFile, "site", "", "file with the settings, instead of the one mounted in the pod")
	cmd.Flags().BoolVar(&debug, "debug", false, "log more")
	return cmd
}
