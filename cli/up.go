package cli

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/machine"
)

func newUpCommand(e *env) *cobra.Command {
	var flags machine.Settings
	var config string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Boot the platform on this machine",
		Long: `Boots Kubernetes and all batteries on this machine, and returns when
everything works. Run it again at any time: it starts what is not running, and
takes over when the program is a newer one. Containers keep running meanwhile.

--config takes a file with the platform's settings, all of which may be left out:

  apiVersion: emerald.dev/v1alpha1
  kind: Platform
  spec:
    domain: apps.example.com      # settled at the first start, as are --node and --domain
    batteries:
      registry:
        config:                   # "emerald batteries show registry" lists the fields
          maxBlob: 2Gi
      build:
        enabled: false

The file is the whole truth: what it leaves out gets its default. Without
--config the settings stay as they are. A flag is stronger than the file.`,
		Example: `  emerald up
  emerald up --domain apps.example.com
  emerald up --config emerald.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return up(ctx, e, defaultDirs(), flags, config)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "`FILE` with a Platform, the platform's settings; - reads standard input")
	cmd.Flags().StringVar(&flags.Node, "node", "", "the machine's name in the cluster (default: its host name)")
	cmd.Flags().StringVar(&flags.Address, "address", "", "the address others reach this machine by (default: that of the default route)")
	cmd.Flags().StringVar(&flags.Domain, "domain", "", `the platform's own domain (default "emerald.localhost")`)
	cmd.Flags().StringVar(&flags.CgroupRoot, "cgroup-root", "", "cgroup to keep the machine's pods in (default: the host's root)")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait until everything works")
	return cmd
}

func up(ctx context.Context, e *env, d dirs.Dirs, flags machine.Settings, config string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("boot the platform: it takes root to run containers: run it again with: sudo emerald up")
	}
	spec, err := e.readConfig(config)
	if err != nil {
		return err
	}
	s, err := e.settle(d, flags, spec)
	if err != nil {
		return err
	}
	if err := start(ctx, e, d, s, spec); err != nil {
		return err
	}
	state, err := (&upWatch{env: e, dirs: d, view: newStepView(e.err)}).wait(ctx)
	if err != nil {
		return err
	}
	path, err := mergeKubeconfig(d)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.err, "\nEmerald %s is up, started in %.1fs. kubectl knows it as context %q (%s).\n", state.Version, state.Took, contextName, path)
	fmt.Fprintf(e.err, "Next:  emerald status          what works\n       emerald deploy DIR      run what is in a folder, behind HTTPS\n       emerald trust           make this host trust the platform's certificates\n")
	return nil
}

// settle returns the machine's settings: those it has, changed by the file's
// and, stronger, the flags, and checked. The name and the domain are part of the
// cluster and stay what they were. The domain of spec becomes the one that
// counts.
func (e *env) settle(d dirs.Dirs, flags machine.Settings, spec *v1alpha1.PlatformSpec) (machine.Settings, error) {
	s, err := machine.LoadSettings(d)
	if err != nil {
		return s, err
	}
	if s.Node != "" && flags.Node != "" && flags.Node != s.Node {
		return s, fmt.Errorf("rename this machine from %q to %q: a machine keeps its name: leave out --node, or start over with: emerald down --wipe", s.Node, flags.Node)
	}
	started := s.Domain
	if flags.Node != "" {
		s.Node = flags.Node
	}
	if flags.Address != "" {
		s.Address = flags.Address
	}
	if spec != nil && spec.Domain != "" {
		s.Domain = spec.Domain
	}
	if flags.Domain != "" {
		s.Domain = flags.Domain
	}
	if flags.CgroupRoot != "" {
		s.CgroupRoot = flags.CgroupRoot
	}
	if s, err = s.Complete(); err != nil {
		return s, err
	}
	if spec != nil && spec.Domain != "" {
		spec.Domain = s.Domain
	}
	return s, e.checkConfig(d, s, started, spec)
}

// start makes sure that a machine with this program and these settings runs.
// A nil spec leaves the platform's settings as they are.
func start(ctx context.Context, e *env, d dirs.Dirs, want machine.Settings, spec *v1alpha1.PlatformSpec) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	have, err := machine.LoadSettings(d)
	if err != nil {
		return err
	}
	running, err := machine.Follow(ctx, d, -1)
	// One that fails is started anew: whoever calls has perhaps mended the cause.
	same := err == nil && running.Failure == nil && running.Binary == machine.BinaryID(self) && have.Same(want)
	switch {
	case same && spec == nil:
		return nil
	case same && running.Ready:
		return changePlatform(ctx, d, *spec)
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
	if spec != nil {
		if err := machine.Wish(d, *spec); err != nil {
			return err
		}
	}
	return machine.Launch(ctx, d)
}
