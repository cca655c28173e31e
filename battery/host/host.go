// Package host is the process around a battery: what `emerald run` does in a
// pod, so that no battery repeats it.
//
// It promises every battery its Site, a health port, metrics, and an end: when
// the pod is told to go, every Run is told and waited for. The batteries of the
// shared controllers run in one pod at a time, each under the rights of its own
// service account and only once the installer has applied what it needs.
//
// It refuses to hide failure: when one battery's Run ends with an error the
// whole process ends, and Kubernetes starts it again.
//
// Invariant: nothing here outlives Run.
package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/emerald-platform/emerald/battery"
)

// The arguments of `emerald run` that name a shared workload.
const (
	Controllers = "controllers"
	Node        = "node"
)

// Options say what to run, and where. Only Batteries and What are required in a
// pod.
type Options struct {
	// Batteries is the whole list.
	Batteries []battery.Battery
	// What is the name of a battery that has a workload of its own, or
	// [Controllers] or [Node].
	What string
	// Pod is the name of the pod that this runs in; the shared workloads need
	// it. By default the variable POD_NAME.
	Pod string
	// SiteFile holds the settings; by default battery.SiteFile.
	SiteFile string
	// Kube reaches the cluster; nil is the pod's own way, with the token of its
	// service account.
	Kube *rest.Config
	// Listen is the health port; nil listens on battery.ReadyPort of every
	// address. Run closes it.
	Listen net.Listener
	// Log receives what batteries say; nil discards.
	Log *slog.Logger
}

// Names returns what `emerald run` takes: the batteries with a workload of
// their own, sorted, and the shared workloads.
func Names(all []battery.Battery) []string {
	names := []string{Controllers, Node}
	for _, b := range all {
		if b.Where == battery.Own && b.Run != nil {
			names = append(names, b.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Run runs until ctx ends, and then returns nil once everything has stopped. It
// returns an error when a battery's Run does, or when it cannot begin.
func Run(ctx context.Context, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Pod == "" {
		o.Pod = os.Getenv("POD_NAME")
	}
	if o.SiteFile == "" {
		o.SiteFile = battery.SiteFile
	}
	settings, err := readSettings(o.SiteFile)
	if err != nil {
		return err
	}
	if o.Kube == nil {
		if o.Kube, err = rest.InClusterConfig(); err != nil {
			return fmt.Errorf("find the cluster from inside a pod: %w", err)
		}
	}
	o.Kube = rest.CopyConfig(o.Kube)
	o.Kube.QPS, o.Kube.Burst = 100, 200
	o.Kube.Wrap(waitForServer)
	if o.Listen == nil {
		if o.Listen, err = net.Listen("tcp", fmt.Sprintf(":%d", battery.ReadyPort)); err != nil {
			return fmt.Errorf("open the health port: %w", err)
		}
	}

	h := newHealth()
	// The port answers until the last battery has stopped.
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer stopServing()
		if o.What == Controllers || o.What == Node {
			return runShared(running, o, settings, h)
		}
		return runOwn(running, o, settings, h)
	})
	g.Go(func() error { return h.serve(serving, o.Listen) })
	return g.Wait()
}

// readSettings reads what the installer has rendered for this workload.
func readSettings(path string) (battery.SiteSettings, error) {
	var s battery.SiteSettings
	raw, err := os.ReadFile(path)
	if err != nil {
		return s, fmt.Errorf("read the settings of this workload: %w", err)
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("decode the settings of this workload, %s: %w", path, err)
	}
	return s, nil
}

// find returns the battery of that name.
func find(all []battery.Battery, name string) (*battery.Battery, error) {
	for i := range all {
		if all[i].Name == name && all[i].Run != nil {
			return &all[i], nil
		}
	}
	return nil, fmt.Errorf("there is nothing to run called %q: there are %s", name, strings.Join(Names(all), ", "))
}

// siteOf returns what the battery is told, but Ready and Leave.
func siteOf(b *battery.Battery, s battery.SiteSettings, config []byte, kube *rest.Config, log *slog.Logger) (battery.Site, error) {
	decoded, err := battery.DecodeConfig(b, config)
	if err != nil {
		return battery.Site{}, err
	}
	return battery.Site{
		Domain: s.Domain, Namespace: battery.NamespaceOf(b.Name), Image: s.Image, Replicas: s.Replicas,
		ClusterDomain: s.ClusterDomain, DNSAddress: s.DNSAddress, RegistryAddress: s.RegistryAddress, DataDir: s.DataDir,
		Config: decoded, Kube: kube, Log: log.With("battery", b.Name),
	}, nil
}

// runOwn runs the one battery of this workload.
func runOwn(ctx context.Context, o Options, s battery.SiteSettings, h *health) error {
	b, err := find(o.Batteries, o.What)
	if err != nil {
		return err
	}
	if b.Where != battery.Own {
		return fmt.Errorf("battery %q has no workload of its own: it runs with: emerald run %s", b.Name, sharedArg(b.Where))
	}
	site, err := siteOf(b, s, s.Config, o.Kube, o.Log)
	if err != nil {
		return err
	}
	h.expect(b.Name)
	h.give(&site, b.Name)
	return runBattery(ctx, b, site)
}

func sharedArg(p battery.Place) string {
	if p == battery.EveryNode {
		return Node
	}
	return Controllers
}

// errStopped is a Run that broke the contract: it ended though nobody asked.
var errStopped = errors.New("it stopped by itself")

func runBattery(ctx context.Context, b *battery.Battery, site battery.Site) error {
	err := b.Run(ctx, site)
	switch {
	case ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
		return nil
	case err == nil:
		err = errStopped
	}
	return fmt.Errorf("run battery %q: %w", b.Name, err)
}
