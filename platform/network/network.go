// Package network runs the pod network of one machine: it learns the machine's
// pod addresses from its Node object, tells the container runtime how to
// connect pods, and keeps the rules in the kernel right.
//
// It promises that pods keep their network while it does not run: the kernel
// holds everything they need. It refuses to change the addresses of pods that
// have some.
//
// How a pod is connected is in [datapath]; what the container runtime calls is
// in the package plugin.
//
// Invariant: the container runtime sees a network only when the machine has
// pod addresses and the kernel forwards.
package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/emerald-platform/emerald/kit/durable"
	"github.com/emerald-platform/emerald/kit/netdump"
	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/network/datapath"
	"github.com/emerald-platform/emerald/platform/network/plugin"
	"github.com/emerald-platform/emerald/platform/sysctl"
)

// Name is the name of the pod network in its configuration.
const Name = "emerald"

// Options tell which machine and cluster this is.
type Options struct {
	// Node is the name of this machine's Node object.
	Node string
	Dirs dirs.Dirs
	// Kube reads that object: the node's own identity suffices.
	Kube kubernetes.Interface
	// ClusterCIDRs are the ranges of all pods of the cluster.
	ClusterCIDRs []netip.Prefix
	Log          *slog.Logger
}

// list is a CNI network configuration list, specification 1.1 §1.
type list struct {
	CNIVersion string    `json:"cniVersion"`
	Name       string    `json:"name"`
	Plugins    []element `json:"plugins"`
}

type element struct {
	Type         string          `json:"type"`
	Capabilities map[string]bool `json:"capabilities"`
	datapath.Config
}

// ConfigPath is the file that tells the container runtime about the network.
func ConfigPath(d dirs.Dirs) string { return filepath.Join(d.CNIConfig(), "10-emerald.conflist") }

// Run keeps the machine's pod network right until ctx ends, then returns nil.
func Run(ctx context.Context, o Options) error {
	n := &network{Options: o, changed: make(chan []netip.Prefix, 1)}
	// What an earlier run learned is good until the API says otherwise.
	if c, err := ReadConfig(o.Dirs); err == nil && c != nil {
		if err := n.apply(ctx, c.PodCIDRs); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { n.watch(ctx); return nil })
	group.Go(func() error { return n.loop(ctx) })
	return group.Wait()
}

type network struct {
	Options
	changed chan []netip.Prefix
	config  datapath.Config
}

// watch sends the machine's pod ranges whenever its Node object shows others.
func (n *network) watch(ctx context.Context) {
	put := func(object any) {
		node, ok := object.(*corev1.Node)
		if !ok {
			return
		}
		ranges, err := podRanges(node)
		if err != nil {
			n.Log.Error("pod addresses of this machine are unusable", "error", err)
			return
		}
		if len(ranges) == 0 {
			return
		}
		select {
		case <-n.changed: // an older value nobody read yet
		default:
		}
		n.changed <- ranges
	}
	source := cache.NewListWatchFromClient(n.Kube.CoreV1().RESTClient(), "nodes", "", fields.OneTermEqualSelector("metadata.name", n.Node))
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: source,
		ObjectType:    new(corev1.Node),
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    put,
			UpdateFunc: func(_, object any) { put(object) },
		},
	})
	informer.RunWithContext(ctx)
}

// podRanges reads the ranges that the controller manager gave to a node.
func podRanges(node *corev1.Node) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, cidr := range node.Spec.PodCIDRs {
		p, err := netip.ParsePrefix(cidr)
		if err != nil {
			return nil, fmt.Errorf("read spec.podCIDRs of node %q: %w", node.Name, err)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// loop applies what watch sends, and now and then mends what others broke.
func (n *network) loop(ctx context.Context) error {
	const interval = time.Minute
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case ranges := <-n.changed:
			if equal(ranges, n.config.PodCIDRs) {
				continue
			}
			if err := n.apply(ctx, ranges); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
		case <-tick.C:
			if len(n.config.PodCIDRs) == 0 {
				continue
			}
			// A network that works must not end because a repair failed.
			if err := n.apply(ctx, n.config.PodCIDRs); err != nil && ctx.Err() == nil {
				n.Log.Error("pod network not repaired", "error", err, "retry", interval)
			}
		}
	}
}

func equal(a, b []netip.Prefix) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// apply makes the kernel and the container runtime agree with the ranges.
func (n *network) apply(ctx context.Context, ranges []netip.Prefix) error {
	n.config = datapath.Config{PodCIDRs: ranges, MTU: uplinkMTU(), StateDir: n.Dirs.Network()}
	settings := sysctl.Record{Path: n.Dirs.Sysctls()}
	for _, r := range ranges {
		name := "net/ipv4/ip_forward"
		if r.Addr().Is6() {
			name = "net/ipv6/conf/all/forwarding"
		}
		if err := settings.Set(name, "1"); err != nil {
			return err
		}
	}
	d := datapath.New(n.config)
	if err := d.SyncEgress(ctx, n.ClusterCIDRs); err != nil {
		return err
	}
	if err := d.SyncPorts(ctx); err != nil {
		return err
	}
	if err := n.collect(ctx, d); err != nil {
		// It is kept in the state and tried again.
		n.Log.Error("dead pods not disconnected", "error", err)
	}
	return n.writeConfig()
}

// collect disconnects pods whose network namespace is gone: the container
// runtime or the whole machine process was killed before it could do so.
func (n *network) collect(ctx context.Context, d *datapath.Datapath) error {
	gone, err := d.Collect(ctx, func(a *datapath.Attachment) bool { return isNamespace(a.NetNS) })
	for _, a := range gone {
		n.Log.Info("dead pod disconnected", "pod", a.Pod, "addresses", a.Addresses)
	}
	return err
}

// isNamespace reports whether path still holds a namespace: the file stays
// behind as a plain one when its mount is gone.
func isNamespace(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// writeConfig tells the container runtime about the network, which it notices
// by itself.
func (n *network) writeConfig() error {
	data, err := json.MarshalIndent(list{
		CNIVersion: plugin.CNIVersion,
		Name:       Name,
		Plugins:    []element{{Type: plugin.Type, Capabilities: map[string]bool{"portMappings": true}, Config: n.config}},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("write the network configuration: %w", err)
	}
	path := ConfigPath(n.Dirs)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write the network configuration: %w", err)
	}
	if err := durable.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("write the network configuration: %w", err)
	}
	n.Log.Info("pod network configured", "podCIDRs", n.config.PodCIDRs, "mtu", n.config.MTU)
	return nil
}

// ReadConfig returns the machine's datapath as last configured, nil when it
// never was.
func ReadConfig(d dirs.Dirs) (*datapath.Config, error) {
	data, err := os.ReadFile(ConfigPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the network configuration: %w", err)
	}
	var l list
	if err := json.Unmarshal(data, &l); err != nil || len(l.Plugins) != 1 || len(l.Plugins[0].PodCIDRs) == 0 {
		return nil, fmt.Errorf("read the network configuration %s: it is not ours: %w", ConfigPath(d), err)
	}
	return &l.Plugins[0].Config, nil
}

// uplinkMTU returns the MTU of the link that leads out of the machine, so that
// no packet of a pod must be cut up or dropped there.
func uplinkMTU() int {
	const ethernet = 1500
	routes, err := netdump.Whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return ethernet
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil && link.Attrs().MTU > 0 {
			return min(link.Attrs().MTU, 65535)
		}
	}
	return ethernet
}
