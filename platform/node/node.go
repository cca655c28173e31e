// Package node is what makes a machine a node of the cluster: kubelet,
// kube-proxy and the pod network, in this process, built from upstream's own
// options and not forked.
//
// It promises that pods go on running when it ends. It refuses to run on a
// cgroup or a directory that it shares with another machine.
//
// Upstream keeps some state per process (metrics, capabilities, feature gates),
// so [Run] can be called once in the life of a process.
//
// Invariant: everything a component is told is in a typed configuration made
// here; nothing is read from the environment.
package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/emerald-platform/emerald/platform/cgroup"
	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/network"
	"github.com/emerald-platform/emerald/platform/wipe"
)

// Options tell which node of which cluster this machine is.
type Options struct {
	// Name of the Node object, a DNS label.
	Name string
	// Address where other machines reach this one.
	Address netip.Addr
	Dirs    dirs.Dirs
	// CgroupRoot is the machine's [cgroup.Tree]. Empty means
	// [cgroup.DefaultRoot].
	CgroupRoot string
	// RuntimeSocket is where the container runtime serves CRI.
	RuntimeSocket string

	// BootstrapKubeconfig is the file whose identity may ask for the node's
	// first certificate. The kubelet keeps its own from then on.
	BootstrapKubeconfig string
	// ProxyKubeconfig is the file with kube-proxy's identity.
	ProxyKubeconfig string
	// ClientCA is the file with the authority of those who may call the
	// kubelet, PEM.
	ClientCA string

	// ClusterDNS are the addresses pods ask for names; ClusterDomain is the
	// suffix of service names.
	ClusterDNS    []netip.Addr
	ClusterDomain string
	// Domain is the platform's own; RegistryAddress is where its registry
	// registry.<Domain> is found before names resolve.
	Domain          string
	RegistryAddress netip.Addr
	// ClusterCIDRs are the ranges of all pods of the cluster.
	ClusterCIDRs []netip.Prefix

	// Labels and Taints the node registers with. Optional.
	Labels map[string]string
	Taints []corev1.Taint
	// Ports the components listen on; the zero value means [DefaultPorts].
	Ports Ports

	Log *slog.Logger
}

// Ports are what the node's components listen on. Those but Kubelet are bound
// to the machine's loopback.
type Ports struct {
	Kubelet, KubeletHealth, ProxyHealth, ProxyMetrics int32
}

// DefaultPorts are upstream's.
var DefaultPorts = Ports{Kubelet: 10250, KubeletHealth: 10248, ProxyHealth: 10256, ProxyMetrics: 10249}

// Run is the node. It returns nil when ctx ends, and otherwise the first error
// of a component, after which the process must be started anew.
func Run(ctx context.Context, o Options) error {
	if o.CgroupRoot == "" {
		o.CgroupRoot = cgroup.DefaultRoot
	}
	if o.Ports == (Ports{}) {
		o.Ports = DefaultPorts
	}
	if err := wipe.Note(o.Dirs); err != nil {
		return err
	}
	if err := (cgroup.Tree{Root: o.CgroupRoot}).Create(""); err != nil {
		return err
	}
	resolver := &resolver{sources: hostResolvers, path: filepath.Join(o.Dirs.Node(), "resolv.conf")}
	if err := os.MkdirAll(o.Dirs.Node(), 0o755); err != nil {
		return fmt.Errorf("prepare the node: %w", err)
	}
	if err := resolver.write(); err != nil {
		return err
	}
	if err := raiseLimits(o.Dirs); err != nil {
		return err
	}
	if err := forgetStaleIdentity(o); err != nil {
		return err
	}
	if err := dropDamaged(o); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return resolver.run(ctx, o.Log) })
	group.Go(func() error { return runKubelet(ctx, o, resolver.path) })
	group.Go(func() error { return runProxy(ctx, o) })
	group.Go(func() error {
		kube, err := identity(ctx, o.Dirs)
		if err != nil || kube == nil {
			return err
		}
		client, err := kubernetes.NewForConfig(kube)
		if err != nil {
			return fmt.Errorf("reach the API as this node: %w", err)
		}
		group.Go(func() error {
			return network.Run(ctx, network.Options{
				Node: o.Name, Dirs: o.Dirs, Kube: client, ClusterCIDRs: o.ClusterCIDRs, Log: o.Log.With("part", "network"),
			})
		})
		group.Go(func() error { return runRegistryHosts(ctx, o, client) })
		return nil
	})
	return group.Wait()
}

// identity waits until the kubelet has a certificate and returns how to reach
// the API with it; the client follows when the certificate is renewed. It
// returns nil when ctx ends first.
func identity(ctx context.Context, d dirs.Dirs) (*rest.Config, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		// The kubelet writes its kubeconfig last; both may be there already.
		_, certErr := os.Stat(filepath.Join(d.KubeletPKI(), "kubelet-client-current.pem"))
		_, err := os.Stat(d.KubeletKubeconfig())
		if err = errors.Join(certErr, err); err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look for the node's certificate: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-tick.C:
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", d.KubeletKubeconfig())
	if err != nil {
		return nil, fmt.Errorf("reach the API as this node: %w", err)
	}
	return config, nil
}

// forgetStaleIdentity removes the kubelet's kubeconfig when it names another
// API server or authority than the bootstrap one does: the kubelet writes it
// once and would use it for ever.
func forgetStaleIdentity(o Options) error {
	have, err := clientcmd.LoadFromFile(o.Dirs.KubeletKubeconfig())
	if os.IsNotExist(err) {
		return nil
	}
	want, wantErr := clientcmd.BuildConfigFromFlags("", o.BootstrapKubeconfig)
	if wantErr != nil {
		return fmt.Errorf("read %s: %w", o.BootstrapKubeconfig, wantErr)
	}
	if err == nil {
		config, configErr := clientcmd.NewDefaultClientConfig(*have, nil).ClientConfig()
		if configErr == nil && config.Host == want.Host && config.CAFile == want.CAFile {
			return nil
		}
	}
	if err := os.Remove(o.Dirs.KubeletKubeconfig()); err != nil {
		return fmt.Errorf("forget the node's old API address: %w", err)
	}
	return nil
}
