package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	componentbase "k8s.io/component-base/config/v1alpha1"
	"k8s.io/kube-proxy/config/v1alpha1"
	"k8s.io/kubernetes/cmd/kube-proxy/app"

	"github.com/emerald-platform/emerald/kit/durable"
	"github.com/emerald-platform/emerald/platform/sysctl"
)

// runProxy runs upstream's kube-proxy until ctx ends.
func runProxy(ctx context.Context, o Options) error {
	path := filepath.Join(o.Dirs.Node(), "kube-proxy.json")
	data, err := json.MarshalIndent(proxyConfiguration(o), "", "  ")
	if err != nil {
		return fmt.Errorf("make kube-proxy's configuration: %w", err)
	}
	if err := durable.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("write kube-proxy's configuration: %w", err)
	}
	// It sets this one even when asked to leave connection tracking alone.
	if err := (sysctl.Record{Path: o.Dirs.Sysctls()}).Remember("net/netfilter/nf_conntrack_tcp_be_liberal"); err != nil {
		return err
	}
	proxy := app.NewOptions()
	flags := pflag.NewFlagSet("kube-proxy", pflag.ContinueOnError)
	proxy.AddFlags(flags)
	if err := flags.Parse([]string{"--config=" + path}); err != nil {
		return fmt.Errorf("configure kube-proxy: %w", err)
	}
	if err := proxy.Complete(flags); err != nil {
		return fmt.Errorf("configure kube-proxy: %w", err)
	}
	if err := proxy.Validate(); err != nil {
		return fmt.Errorf("configure kube-proxy: %w", err)
	}
	if err := findNft(); err != nil {
		return err
	}
	// Upstream's Run does not end with its context; what it started does.
	ended := make(chan error, 1)
	go func() { ended <- proxy.Run(ctx) }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		if err == nil || ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("run kube-proxy: %w", err)
	}
}

// findNft extends this process's search path when nft is where not every
// root's shell looks: kube-proxy can't be told a path.
func findNft() error {
	if _, err := exec.LookPath("nft"); err == nil {
		return nil
	}
	if _, err := exec.LookPath("/usr/sbin/nft"); err != nil {
		return fmt.Errorf("find nft, which sets the rules of services: %w; install it: apt-get install nftables", err)
	}
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin"); err != nil {
		return fmt.Errorf("extend the search path: %w", err)
	}
	return nil
}

// proxyConfiguration returns the node's part of upstream's configuration.
func proxyConfiguration(o Options) *v1alpha1.KubeProxyConfiguration {
	loopback := func(port int32) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))) }
	var cidrs []string
	for _, p := range o.ClusterCIDRs {
		cidrs = append(cidrs, p.String())
	}
	// Zero leaves the kernel's connection tracking as the administrator set
	// it; upstream's values can't be written where /proc/sys is read-only.
	none := int32(0)
	return &v1alpha1.KubeProxyConfiguration{
		TypeMeta:           metav1.TypeMeta{APIVersion: v1alpha1.SchemeGroupVersion.String(), Kind: "KubeProxyConfiguration"},
		ClientConnection:   componentbase.ClientConnectionConfiguration{Kubeconfig: o.ProxyKubeconfig, ContentType: "application/vnd.kubernetes.protobuf"},
		HostnameOverride:   o.Name,
		HealthzBindAddress: loopback(o.Ports.ProxyHealth),
		MetricsBindAddress: loopback(o.Ports.ProxyMetrics),
		Mode:               "nftables",
		DetectLocalMode:    "ClusterCIDR",
		ClusterCIDR:        strings.Join(cidrs, ","),
		Conntrack: v1alpha1.KubeProxyConntrackConfiguration{
			MaxPerCore: &none, Min: &none,
			TCPEstablishedTimeout: &metav1.Duration{}, TCPCloseWaitTimeout: &metav1.Duration{},
		},
		NFTables: v1alpha1.KubeProxyNFTablesConfiguration{
			SyncPeriod: metav1.Duration{Duration: 30 * time.Second},
		},
	}
}
