package cli

import (
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/emerald-platform/emerald/batteries/certs"
)

// newACMESolverCommand answers one challenge of an ACME server. cert-manager
// runs it in a pod; see solverArgs.
func newACMESolverCommand(e *env) *cobra.Command {
	var c certs.Challenge
	cmd := &cobra.Command{
		Use:    "acme-solver",
		Short:  "Answer the challenge of an ACME server",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return certs.Solve(cmd.Context(), slog.New(slog.NewJSONHandler(e.err, nil)), c)
		},
	}
	cmd.Flags().IntVar(&c.Port, "listen-port", 8089, "port to listen on")
	cmd.Flags().StringVar(&c.Domain, "domain", "", "host that is asked for")
	cmd.Flags().StringVar(&c.Token, "token", "", "token that is asked for")
	cmd.Flags().StringVar(&c.Key, "key", "", "what to answer")
	return cmd
}

// solverArgs returns the whole command line for the arguments that cert-manager
// gives the image of its solver: flags alone, since upstream's image has no other
// program. Other arguments are returned as they are.
func solverArgs(args []string) []string {
	if len(args) > 0 && strings.HasPrefix(args[0], "--listen-port=") {
		return append([]string{"acme-solver"}, args...)
	}
	return args
}
