package cli

import (
	"fmt"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/emerald-platform/emerald/kit/echo"
)

// newEchoCommand answers requests with what they ask. It is hidden: pods of the
// platform's own image, which has no other program, run it as the backends of
// proofs.
func newEchoCommand() *cobra.Command {
	var listen, name string
	cmd := &cobra.Command{
		Use:     "echo",
		Short:   "Answer HTTP, gRPC and WebSocket requests with what they ask",
		Hidden:  true,
		Args:    cobra.NoArgs,
		Example: "  emerald echo --listen :8080",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if port := os.Getenv("PORT"); port != "" && !cmd.Flags().Changed("listen") {
				listen = ":" + port
			}
			if name == "" {
				name, _ = os.Hostname() // an unnamed machine is answered for without a name
			}
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return fmt.Errorf("listen at %q: %w", listen, err)
			}
			return echo.Serve(cmd.Context(), l, name)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", ":8080", "address to listen at; by default the port in $PORT, else 8080")
	cmd.Flags().StringVar(&name, "name", "", "name to give in answers; by default the machine's or pod's")
	return cmd
}
