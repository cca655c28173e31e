package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/machine"
)

func newUpCommand(e *env) *cobra.Command {
	var flags machine.Settings
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Boot the platform on this machine",
		Long: `Boots Kubernetes and all batteries on this machine, and returns when
everything works. Run it again at any time: it starts what is not running, and
takes over when the program is a newer one. Containers keep running meanwhile.`,
		Example: `  emerald up
  emerald up --domain apps.example.com`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return up(ctx, e, defaultDirs(), flags)
		},
	}
	cmd.Flags().StringVar(&flags.Node, "node", "", "the machine's name in the cluster (default: its host name)")
	cmd.Flags().StringVar(&flags.Address, "address", "", "the address others reach this machine by (default: that of the default route)")
	cmd.Flags().StringVar(&flags.Domain, "domain", "", `the platform's own domain (default "emerald.localhost")`)
	cmd.Flags().StringVar(&flags.CgroupRoot, "cgroup-root", "", "cgroup to keep the machine's pods in (default: the host's root)")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait until everything works")
	return cmd
}

func up(ctx context.Context, e *env, d dirs.Dirs, flags machine.Settings) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("boot the platform: it takes root to run containers: run it again with: sudo emerald up")
	}
	s, err := settle(d, flags)
	if err != nil {
		return err
	}
	if err := start(ctx, e, d, s); err != nil {
		return err
	}
	state, err := watchUp(ctx, e, d)
	if err != nil {
		return err
	}
	path, err := mergeKubeconfig(d)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.err, "\nEmerald %s is up in %s. kubectl knows it as context %q (%s).\n", state.Version, state.Took().Round(100*time.Millisecond), contextName, path)
	fmt.Fprintf(e.err, "Next:  emerald status          what works\n       emerald deploy DIR      run what is in a folder, behind HTTPS\n       emerald trust           make this host trust the platform's certificates\n")
	return nil
}

// settle returns the machine's settings: those it has, changed by the flags.
// The name and address are part of the cluster and stay what they were.
func settle(d dirs.Dirs, flags machine.Settings) (machine.Settings, error) {
	s, err := machine.LoadSettings(d)
	if err != nil {
		return s, err
	}
	if s.Node != "" && flags.Node != "" && flags.Node != s.Node {
		return s, fmt.Errorf("rename this machine from %q to %q: a machine keeps its name: leave out --node, or start over with: emerald down --wipe", s.Node, flags.Node)
	}
	if flags.Node != "" {
		s.Node = flags.Node
	}
	if flags.Address != "" {
		s.Address = flags.Address
	}
	if flags.Domain != "" {
		s.Domain = flags.Domain
	}
	if flags.CgroupRoot != "" {
		s.CgroupRoot = flags.CgroupRoot
	}
	return s.Complete()
}

// start makes sure that a machine with this program and these settings runs.
func start(ctx context.Context, e *env, d dirs.Dirs, want machine.Settings) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	have, err := machine.LoadSettings(d)
	if err != nil {
		return err
	}
	running, err := machine.Follow(ctx, d, -1)
	if err == nil && running.Binary == machine.BinaryID(self) && have.Same(want) {
		return nil
	}
	if machine.PID(d) == 0 {
		if err := machine.Preflight(ctx, d, want); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(e.err, "restarting the platform's process; containers keep running")
	}
	if err := machine.SaveSettings(d, want); err != nil {
		return err
	}
	return machine.Launch(ctx, d)
}

// watchUp shows the machine's steps as they happen and returns when all are
// done.
func watchUp(ctx context.Context, e *env, d dirs.Dirs) (machine.State, error) {
	view := newStepView(e.err)
	revision := int64(-1)
	for {
		state, err := machine.Follow(ctx, d, revision)
		switch {
		case err == nil:
			revision = state.Revision
			view.show(state)
			if state.Ready {
				return state, nil
			}
		case ctx.Err() != nil:
			return state, upTimeout(ctx, d, view.last)
		case errors.Is(err, machine.ErrDown):
			// It is on its way, or gone again: the log knows.
			if reason := machine.LastWords(d); reason != "" && machine.PID(d) == 0 {
				return state, fmt.Errorf("boot the platform: %s: the whole log is in %s", reason, machine.LogFile(d))
			}
			revision = -1
			if err := machine.Pause(ctx, 20*time.Millisecond); err != nil {
				return state, upTimeout(ctx, d, view.last)
			}
		default:
			return state, err
		}
	}
}

func upTimeout(ctx context.Context, d dirs.Dirs, last machine.State) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("boot the platform: interrupted; it goes on in the background: see it with: emerald status, stop it with: emerald down")
	}
	for _, s := range last.Steps {
		if !s.Done {
			reason := s.Waits
			if s.Error != "" {
				reason = s.Error
			}
			return fmt.Errorf("boot the platform: %s is not ready in time (%s): it goes on in the background: see it with: emerald status, its log is %s", s.Name, reason, machine.LogFile(d))
		}
	}
	return fmt.Errorf("boot the platform: it did not answer in time: its log is %s", machine.LogFile(d))
}
