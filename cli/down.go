package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/emerald-platform/emerald/platform/machine"
)

func newDownCommand(e *env) *cobra.Command {
	var wipe, yes bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop the platform on this machine",
		Long: `Stops the platform and every container it runs. Data stays, and "emerald up"
continues where it was.

With --wipe the data goes too, and nothing of Emerald is left on the machine: no
file, mount, network device, firewall rule, control group or process, and no
trust in the platform's certificates. This program stays where it is.`,
		Example: `  emerald down
  emerald down --wipe --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return fmt.Errorf("stop the platform: it takes root: run it again with: sudo emerald down")
			}
			d := defaultDirs()
			if wipe {
				err := e.confirm(yes, fmt.Sprintf("This deletes every app, image and volume in %s. Go on?", d.Data))
				if errors.Is(err, errNotConfirmed) {
					return fmt.Errorf("nothing was deleted: to go on without a question: emerald down --wipe --yes")
				}
				if err != nil {
					return err
				}
			}
			// A note that cannot be read must not keep anybody from wiping.
			files, noteErr := trusted(d)
			if err := machine.Down(cmd.Context(), d, wipe, slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{Level: slog.LevelWarn}))); err != nil {
				return err
			}
			if wipe {
				if err := errors.Join(unmergeKubeconfig(), noteErr, forgetTrust(cmd.Context(), files)); err != nil {
					return err
				}
				fmt.Fprintln(e.err, "Emerald is gone from this machine.")
				return nil
			}
			fmt.Fprintln(e.err, "Emerald is down; its data is kept. Start it again with: emerald up")
			return nil
		},
	}
	cmd.Flags().BoolVar(&wipe, "wipe", false, "also delete all data and every trace")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
