// Package machine is the life of the one process that a machine runs: it takes
// the lock, opens the keys, and runs the control plane, the container runtime,
// the node and the installer until it is told to stop.
//
// It promises that it can be killed at any moment: whoever starts it again gets
// the same cluster, and containers do not notice.
//
// It refuses to run twice on the same directories, and on data that a newer
// version wrote.
//
// Invariant: everything it starts ends with it, except the container runtime
// and the containers, which are children of the host.
package machine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/battery/install"
	"github.com/emerald-platform/emerald/platform/containers"
	"github.com/emerald-platform/emerald/platform/controlplane"
	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/entry"
	"github.com/emerald-platform/emerald/platform/node"
	"github.com/emerald-platform/emerald/platform/pki"
	"github.com/emerald-platform/emerald/platform/selfimage"
)

// The cluster's fixed ranges and addresses.
const (
	PodCIDR         = "10.42.0.0/16"
	ServiceCIDR     = "10.43.0.0/16"
	APIAddress      = "10.43.0.1"
	DNSAddress      = "10.43.0.10"
	RegistryAddress = "10.43.0.11"
	ClusterDomain   = "cluster.local"
)

// Options are what a machine needs to know to come up.
type Options struct {
	Dirs dirs.Dirs
	// Node is the machine's name in the cluster, Address where others reach
	// it. Both are kept from the first start on.
	Node    string
	Address net.IP
	// Domain is the platform's own.
	Domain string
	// CgroupRoot is the cgroup that holds the machine's pods, "" for the
	// host's root: machines that share a host have one each.
	CgroupRoot string
	// Batteries is what to install.
	Batteries []battery.Battery
	Log       *slog.Logger
}

// The steps shown while a machine comes up.
const (
	stepKeys       = "keys and certificates"
	stepContainers = "container runtime"
	stepImage      = "platform image"
	stepAPI        = "Kubernetes API"
	stepNode       = "node"
)

// Run is the machine. It blocks until ctx ends, and returns nil then. When a
// part ends with an error it waits a while, during which its state says why, and
// returns what [Again] takes.
func Run(ctx context.Context, o Options) error {
	tries, began := takeTries(), time.Now()
	lock, err := takeLock(ctx, o.Dirs)
	if err != nil {
		return err
	}
	defer lock.Close()
	steps := []string{stepKeys, stepContainers, stepImage, stepAPI, stepNode}
	for _, b := range o.Batteries {
		steps = append(steps, batteryStep(b.Name))
	}
	m := &machine{Options: o, board: newBoard(Version, binaryID(), steps...), tries: tries, began: began, apiReady: make(chan struct{})}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return serveState(ctx, o.Dirs, m.board, o.Log) })
	group.Go(func() error { return tendMemory(ctx, m.apiReady, o.Log) })
	group.Go(func() error { return boundLog(ctx, LogFile(o.Dirs), logSize, logInterval, o.Log) })
	group.Go(func() error {
		err := m.run(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		return m.startAgain(ctx, err, began)
	})
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

type machine struct {
	Options
	board *board
	tries int // starts in a row that failed before this one
	began time.Time
	// apiReady is closed when the API is ready.
	apiReady chan struct{}
	// runtime is there once the platform's image is.
	runtime *containers.Runtime
}

// run brings the parts up side by side: each waits only for what it needs.
func (m *machine) run(ctx context.Context) error {
	keys, err := pki.Open(m.Dirs.InData("pki"), pki.Identity{
		Node: m.Node, Addresses: []net.IP{m.Address},
		ServiceAddress: net.ParseIP(APIAddress).To4(), ClusterDomain: ClusterDomain,
	})
	if err != nil {
		return err
	}
	plane := controlplane.Options{
		DataDir: m.Dirs.Data, Node: m.Node, Address: m.Address,
		PodCIDR: PodCIDR, ServiceCIDR: ServiceCIDR, ClusterDomain: ClusterDomain,
		PKI: keys, Log: m.Log.With("part", "controlplane"),
	}
	if err := controlplane.Prepare(plane); err != nil {
		return err
	}
	controllersBuilt := make(chan struct{})
	plane.Ready = func() {
		m.board.done(stepAPI)
		close(m.apiReady)
	}
	plane.ControllersBuilt = func() { close(controllersBuilt) }
	client, err := plane.Client()
	if err != nil {
		return err
	}
	m.board.done(stepKeys)

	var (
		group   *errgroup.Group
		runtime = make(chan *containers.Runtime, 1)
		image   = make(chan string, 1)
	)
	group, ctx = errgroup.WithContext(ctx)
	group.Go(func() error { return keys.Renew(ctx, m.Log, nil) })
	group.Go(func() error { return controlplane.Run(ctx, plane) })
	group.Go(func() error { return m.runContainers(ctx, runtime, image) })
	group.Go(func() error {
		if !wait(ctx, controllersBuilt) {
			return nil
		}
		return m.runNode(ctx, keys, plane, runtime)
	})
	group.Go(func() error {
		if !wait(ctx, m.apiReady) {
			return nil
		}
		kube, err := kubernetes.NewForConfig(client)
		if err != nil {
			return fmt.Errorf("reach the API: %w", err)
		}
		group.Go(func() error { return m.watchNode(ctx, kube) })
		group.Go(func() error {
			return entry.Run(ctx, entry.Options{Kube: client, Node: m.Node, Log: m.Log.With("part", "entry")})
		})
		hostPublished := make(chan struct{})
		group.Go(func() error { return publishHost(ctx, kube, m.Log, func() { close(hostPublished) }) })
		if !wait(ctx, hostPublished) {
			return nil
		}
		return m.runCluster(ctx, client, kube, image)
	})
	return group.Wait()
}

// runContainers brings up the runtime, then the images that need no registry.
func (m *machine) runContainers(ctx context.Context, started chan<- *containers.Runtime, image chan<- string) error {
	rt, err := containers.Start(ctx, containers.Options{
		Dirs: m.Dirs, CgroupRoot: m.CgroupRoot, Log: m.Log.With("part", "containers"),
	})
	if err != nil {
		return err
	}
	defer rt.Close()
	m.board.done(stepContainers)
	m.runtime = rt
	started <- rt
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return rt.Watch(ctx) })
	group.Go(func() error {
		ref, err := selfimage.Ensure(ctx, rt, m.Dirs, HostCABundle(), m.Log.With("part", "image"))
		if err != nil {
			return err
		}
		m.board.done(stepImage)
		image <- ref
		return nil
	})
	return group.Wait()
}

// runNode makes the machine a node of its own cluster as soon as it has a
// runtime: the kubelet waits for the API by itself.
func (m *machine) runNode(ctx context.Context, keys *pki.PKI, plane controlplane.Options, started <-chan *containers.Runtime) error {
	var rt *containers.Runtime
	select {
	case rt = <-started:
	case <-ctx.Done():
		return nil
	}
	address, ok := netip.AddrFromSlice(m.Address)
	if !ok {
		return fmt.Errorf("address %q is no IP address", m.Address)
	}
	return node.Run(ctx, node.Options{
		Name: m.Node, Address: address, Dirs: m.Dirs, CgroupRoot: m.CgroupRoot, RuntimeSocket: rt.Socket,
		BootstrapKubeconfig: plane.Kubeconfig(pki.NodeBootstrap), ProxyKubeconfig: plane.Kubeconfig(pki.KubeProxy),
		ClientCA:   keys.Cert(pki.ClusterCA),
		ClusterDNS: []netip.Addr{netip.MustParseAddr(DNSAddress)}, ClusterDomain: ClusterDomain,
		Domain: m.Domain, RegistryAddress: netip.MustParseAddr(RegistryAddress),
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix(PodCIDR)},
		Log:          m.Log.With("part", "node"),
	})
}

// watchNode reports when the cluster says that the node is ready, and when it
// says why not.
func (m *machine) watchNode(ctx context.Context, client kubernetes.Interface) error {
	name := fields.OneTermEqualSelector("metadata.name", m.Node)
	list := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "nodes", "", name)
	see := func(o any) {
		for _, c := range o.(*corev1.Node).Status.Conditions {
			if c.Type == corev1.NodeReady {
				m.board.update(stepNode, func(s *Step) {
					s.Done = c.Status == corev1.ConditionTrue
					s.Waits = c.Message
				})
			}
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: list, ObjectType: &corev1.Node{},
		Handler: cache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, o any) { see(o) }},
	})
	informer.RunWithContext(ctx)
	return nil
}

// runCluster does what only servers do: it installs the batteries.
func (m *machine) runCluster(ctx context.Context, client *rest.Config, kube kubernetes.Interface, image <-chan string) error {
	var ref string
	select {
	case ref = <-image:
	case <-ctx.Done():
		return nil
	}
	// Before anybody takes the cluster's word for what is ready.
	if err := disownDead(ctx, kube, m.runtime.Client(), m.Node, m.began, m.Log); err != nil {
		return err
	}
	for _, b := range m.Batteries {
		dir := m.Dirs.InData("batteries", b.Name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the data directory of battery %q: %w", b.Name, err)
		}
		if err := os.Chown(dir, battery.UserID, battery.UserID); err != nil {
			return fmt.Errorf("hand the data directory to battery %q: %w", b.Name, err)
		}
	}
	o := install.Options{
		Kube: client, Batteries: m.Batteries, Version: Version, Log: m.Log.With("part", "installer"), Progress: m.showBatteries,
		Site: Site(m.Dirs, m.Domain, ref), FixedDomain: true,
	}
	spec, err := wish(m.Dirs)
	if err != nil {
		return err
	}
	if spec != nil {
		o.Change = func(s *v1alpha1.PlatformSpec) { *s = *spec.DeepCopy() }
		o.Changed = func() error { return forgetWish(m.Dirs) }
	}
	installer, err := install.New(o)
	if err != nil {
		return err
	}
	return installer.Run(ctx)
}

func batteryStep(name string) string { return "battery " + name }

// showBatteries keeps one step per battery that is on.
func (m *machine) showBatteries(all []v1alpha1.BatteryStatus) {
	for _, b := range all {
		if b.Phase == v1alpha1.PhaseOff {
			m.board.drop(batteryStep(b.Name))
			continue
		}
		m.board.update(batteryStep(b.Name), func(s *Step) {
			s.Done = b.Phase == v1alpha1.PhaseReady
			s.Waits, s.Error = b.Message, ""
			if b.Phase == v1alpha1.PhaseFailed {
				s.Waits, s.Error = "", b.Message
			}
		})
	}
}

// wait returns true when ready is closed, false when ctx ends first.
func wait(ctx context.Context, ready <-chan struct{}) bool {
	select {
	case <-ready:
		return true
	case <-ctx.Done():
		return false
	}
}
