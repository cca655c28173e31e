package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/emerald-platform/emerald/lab"
)

func newLabCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Try the platform on machines that are network namespaces of this host",
	}
	cmd.AddCommand(newLabUpCommand(e))
	return cmd
}

func newLabUpCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "up [-- COMMAND [ARG…]]",
		Short: "Boot a machine in a lab, keep it until interrupted, remove it",
		Long: `Boots the platform on a machine of its own on this host: a network namespace,
directories and a control group that have nothing to do with the host's own
Emerald. It lives as long as this command, or as the COMMAND that it runs on the
machine, with KUBECONFIG and PATH set.`,
		Example: `  emerald lab up
  emerald lab up -- bash
  emerald lab up -- emerald verify`,
		RunE: func(cmd *cobra.Command, args []string) error { return labUp(cmd.Context(), e, args) },
	}
}

func labUp(ctx context.Context, e *env, command []string) (err error) {
	l, err := lab.New(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(context.WithoutCancel(ctx))) }()
	m, err := l.AddMachine("one")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	up := m.Command(ctx, self, append([]string{"up"}, m.UpFlags()...)...)
	up.Stdout, up.Stderr = e.out, e.err
	if err := m.Run(up); err != nil {
		return fmt.Errorf("boot the machine: %w", err)
	}
	kubeconfig := m.Home + "/.kube/config"
	if err := m.WriteKubeconfig(kubeconfig); err != nil {
		return err
	}
	if len(command) == 0 {
		fmt.Fprintf(e.out, "KUBECONFIG=%s\n", kubeconfig)
		fmt.Fprintf(e.err, "The machine is at %s. Press Ctrl-C to remove it.\n", m.Address)
		<-ctx.Done()
		return nil
	}
	inside := m.Command(ctx, command[0], command[1:]...)
	inside.Stdin, inside.Stdout, inside.Stderr = e.in, e.out, e.err
	inside.Env = append(inside.Env, "KUBECONFIG="+kubeconfig)
	err = m.Run(inside)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exitError{code: exit.ExitCode()}
	}
	return err
}
