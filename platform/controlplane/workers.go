package controlplane

import (
	"context"
	"fmt"

	cliflag "k8s.io/component-base/cli/flag"
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	kcmoptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"

	"github.com/emerald-platform/emerald/platform/pki"
)

// runControllerManager follows NewControllerManagerCommand's RunE.
func runControllerManager(ctx context.Context, o Options) error {
	opts, err := kcmoptions.NewKubeControllerManagerOptions()
	if err != nil {
		return fmt.Errorf("make kube-controller-manager's options: %w", err)
	}
	sets := opts.Flags(kcm.KnownControllers(), kcm.ControllersDisabledByDefault(), kcm.ControllerAliases())
	opts.ParsedFlags = &sets
	if err := parse("kube-controller-manager", sets, append(clientFlags(o, pki.ControllerManager, ControllerManagerPort),
		"--cluster-signing-cert-file="+o.PKI.Cert(pki.ClusterCA),
		"--cluster-signing-key-file="+o.PKI.Key(pki.ClusterCA),
		"--cluster-signing-duration=2160h",
		"--root-ca-file="+o.PKI.Cert(pki.ClusterCA),
		"--service-account-private-key-file="+o.PKI.Key(pki.ServiceAccounts),
		"--use-service-account-credentials=true",
		"--allocate-node-cidrs=true",
		"--cluster-cidr="+o.PodCIDR,
		"--service-cluster-ip-range="+o.ServiceCIDR,
		"--cluster-name=emerald",
		"--controllers=*,bootstrap-signer-controller,token-cleaner-controller",
	)); err != nil {
		return err
	}
	if err := opts.ComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("set kube-controller-manager's feature gates: %w", err)
	}
	cfg, err := opts.Config(ctx, kcm.KnownControllers(), kcm.ControllersDisabledByDefault(), kcm.ControllerAliases())
	if err != nil {
		return fmt.Errorf("configure kube-controller-manager: %w", err)
	}
	if err := kcm.Run(ctx, cfg.Complete()); err != nil {
		return fmt.Errorf("run kube-controller-manager: %w", err)
	}
	return nil
}

// runScheduler follows NewSchedulerCommand's RunE.
func runScheduler(ctx context.Context, o Options) error {
	opts := scheduleroptions.NewOptions()
	var sets cliflag.NamedFlagSets = *opts.Flags
	if err := parse("kube-scheduler", sets, clientFlags(o, pki.Scheduler, SchedulerPort)); err != nil {
		return err
	}
	if err := opts.ComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("set kube-scheduler's feature gates: %w", err)
	}
	completed, sched, err := scheduler.Setup(ctx, opts)
	if err != nil {
		return fmt.Errorf("configure kube-scheduler: %w", err)
	}
	if err := scheduler.Run(ctx, completed, sched); err != nil {
		return fmt.Errorf("run kube-scheduler: %w", err)
	}
	return nil
}

// clientFlags are what both have in common: who they are, and a port of their
// own for health and metrics on the loopback.
func clientFlags(o Options, name string, port int) []string {
	kubeconfig := o.Kubeconfig(name)
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", port),
		"--tls-cert-file=" + o.PKI.Cert(pki.APIServer),
		"--tls-private-key-file=" + o.PKI.Key(pki.APIServer),
		"--leader-elect=false",
		// The API's priority and fairness protects it; the defaults made for
		// slow networks would stretch the start by seconds.
		"--kube-api-qps=500", "--kube-api-burst=1000",
		"--profiling=false",
	}
}
