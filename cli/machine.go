package cli

import (
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/emerald-platform/emerald/platform/containers"
	"github.com/emerald-platform/emerald/platform/machine"
)

// newMachineCommand is the machine's own process, started by `emerald up`, by
// the service manager or by the guard; never by people.
func newMachineCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:    machine.Command,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewJSONHandler(e.err, nil))
			klog.SetSlogLogger(log.With("part", "kubernetes"))
			slog.SetDefault(log)
			d := defaultDirs()
			s, err := machine.LoadSettings(d)
			if err != nil {
				return err
			}
			if s.Node == "" {
				return fmt.Errorf("this machine was never started: start it with: emerald up")
			}
			log.Info("starting", "version", machine.Version, "node", s.Node, "address", s.Address)
			err = machine.Run(cmd.Context(), machine.Options{
				Dirs: d, Node: s.Node, Address: net.ParseIP(s.Address).To4(), Domain: s.Domain,
				CgroupRoot: s.CgroupRoot, Batteries: e.batteries, Log: log,
			})
			return machine.Again(err)
		},
	}
}

// newContainerdCommand is the container runtime's own process, started by the
// machine's. It outlives that one, and where no service manager does, it also
// watches over it.
func newContainerdCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:                "containerd",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if os.Getenv("EMERALD_SERVICE") == "" {
				go machine.Guard(cmd.Context(), defaultDirs(), slog.New(slog.NewJSONHandler(e.err, nil)))
			}
			return containers.Main(cmd.Context(), args)
		},
	}
}
