// Package cli is the command line: one file per command, each of which parses,
// calls and prints. What a command does lives in the packages it calls.
//
// Invariant: results go to standard output and nothing else does, so that every
// command can be piped.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/machine"
)

// Main runs the command line with these batteries and ends the process. A
// vendor's own program is this call with batteries appended to the list.
func Main(all []battery.Battery) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	e := &env{batteries: all, in: os.Stdin, out: os.Stdout, err: os.Stderr}
	root := newRoot(e)
	root.SetArgs(solverArgs(os.Args[1:]))
	if cmd := commandOfName(filepath.Base(os.Args[0])); cmd != "" {
		root.SetArgs(append([]string{cmd}, os.Args[1:]...))
	}
	err := root.ExecuteContext(ctx)
	stop()
	os.Exit(report(e, err))
}

// exitError is an error with an exit code of its own; every other error is 1.
type exitError struct {
	code int
	err  error // nil prints nothing: the command has said it all
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

// report prints what went wrong and returns the exit code for it.
func report(e *env, err error) int {
	if err == nil {
		return 0
	}
	var exit exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			fmt.Fprintf(e.err, "emerald: %v\n", exit.err)
		}
		return exit.code
	}
	fmt.Fprintf(e.err, "emerald: %v\n", err)
	return 1
}

// commandOfName returns the command that the program stands for when it is
// called by another name, through a link.
func commandOfName(base string) string {
	switch base {
	case "emerald-cni":
		return "cni"
	case "emerald-credential-provider":
		return "credential-provider"
	case "kubectl":
		return "kubectl"
	}
	return ""
}

func defaultDirs() dirs.Dirs {
	d := dirs.Default
	if data := os.Getenv("EMERALD_DATA"); data != "" {
		d.Data = data
	}
	if run := os.Getenv("EMERALD_RUN"); run != "" {
		d.Run = run
	}
	return d
}

func newRoot(e *env) *cobra.Command {
	// Upstream's packages have put flags of theirs here, which cobra would show.
	pflag.CommandLine = pflag.NewFlagSet("emerald", pflag.ContinueOnError)
	root := &cobra.Command{
		Use:   "emerald",
		Short: "Kubernetes, batteries included",
		Long: `Emerald is Kubernetes, batteries included: one program that boots a real
Kubernetes and everything a platform needs, fitted together.

  emerald up          boot the platform on this machine
  emerald deploy .    run what is in this folder, behind HTTPS
  emerald status      see what works
  emerald verify      prove it`,
		Version:           machine.Version,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.PersistentFlags().StringVar(&e.kubeconfig, "kubeconfig", "", "kubeconfig file to use instead of kubectl's default")
	root.PersistentFlags().StringVar(&e.context, "context", "", "context of the kubeconfig to use")
	root.AddCommand(commands(e)...)
	root.Args = noSuchCommand
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	explainUsage(root)
	return root
}

func commands(e *env) []*cobra.Command {
	return []*cobra.Command{
		newUpCommand(e),
		newDownCommand(e),
		newLabCommand(e),
		newStatusCommand(e),
		newVerifyCommand(e),
		newBatteriesCommand(e),
		newDeployCommand(e),
		newBuildCommand(e),
		newAppCommand(e),
		newKubectlCommand(e),
		newKubeconfigCommand(e),
		newRegistryCommand(e),
		newTrustCommand(e),
		newVersionCommand(e),
		// Called by the platform itself, hidden from people.
		newMachineCommand(e),
		newRunCommand(e),
		newContainerdCommand(e),
		newLookupCommand(e),
		newACMESolverCommand(e),
		newEchoCommand(),
		newCredentialProviderCommand(e),
	}
}
