package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/emerald-platform/emerald/battery"
)

// Terms of the leader of emerald-controllers. A leader that dies without a word
// is replaced after leaseDuration, one that is told to go at once.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// errDeposed is a leader whom the others had to give up.
var errDeposed = errors.New("the lease is lost: the API server was out of reach for too long")

// runShared runs the batteries of a shared workload: on every machine at once,
// or where the leader is.
func runShared(ctx context.Context, o Options, s battery.SiteSettings, h *health) error {
	if o.Pod == "" {
		return errors.New("find this pod: the variable POD_NAME is not set")
	}
	names, err := mine(o, s)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(o.Kube)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	// Reports outlive the batteries, which may have last words.
	reporting, stopReports := context.WithCancel(context.WithoutCancel(ctx))
	reports := newReports(client, o.Pod, names, o.Log)
	reported := make(chan struct{})
	go func() { defer close(reported); reports.run(reporting) }()
	defer func() { stopReports(); <-reported }()

	h.changed = reports.ready
	if o.What == Node {
		return runAll(ctx, o, s, names, h)
	}
	return lead(ctx, client, o.Pod, o.Log, func(ctx context.Context) error {
		return runAll(ctx, o, s, names, h)
	})
}

// mine returns the names of the batteries this workload runs, sorted.
func mine(o Options, s battery.SiteSettings) ([]string, error) {
	place := battery.Controllers
	if o.What == Node {
		place = battery.EveryNode
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(s.Batteries)) {
		b, err := find(o.Batteries, name)
		if err != nil {
			return nil, err
		}
		if b.Where == place {
			names = append(names, name)
		}
	}
	return names, nil
}

// runAll runs batteries side by side, each as soon as the installer says that
// what it needs is there.
func runAll(ctx context.Context, o Options, s battery.SiteSettings, names []string, h *health) error {
	g, ctx := errgroup.WithContext(ctx)
	starts, err := newStarts(o.Kube)
	if err != nil {
		return err
	}
	for _, name := range names {
		h.expect(name)
	}
	g.Go(func() error { return starts.watch(ctx) })
	for _, name := range names {
		b, err := find(o.Batteries, name)
		if err != nil {
			return err
		}
		site, err := siteOf(b, s, s.Batteries[name], as(o.Kube, name), o.Log)
		if err != nil {
			return err
		}
		h.give(&site, name)
		g.Go(func() error {
			if !starts.wait(ctx, name) {
				return nil
			}
			site.Log.Info("start")
			return runBattery(ctx, b, site)
		})
	}
	return g.Wait()
}

// as returns a client configuration that acts under the battery's own service
// account, and can do no more than that.
func as(kube *rest.Config, name string) *rest.Config {
	out := rest.CopyConfig(kube)
	out.Impersonate = rest.ImpersonationConfig{
		UserName: fmt.Sprintf("system:serviceaccount:%s:%s", battery.NamespaceOf(name), name),
	}
	return out
}

// lead calls work once this pod is the leader, and gives the lease back after
// work has returned. It returns nil when ctx ends.
func lead(ctx context.Context, client kubernetes.Interface, pod string, log *slog.Logger, work func(context.Context) error) error {
	// The election outlives the work: nobody else may begin before we ended.
	electing, stopElection := context.WithCancel(context.WithoutCancel(ctx))
	defer stopElection()
	working, stopWork := context.WithCancel(ctx)
	defer stopWork()

	var once sync.Once
	elected, deposed := make(chan struct{}), make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name: battery.ControllersWorkload,
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: battery.SystemNamespace, Name: battery.ControllersWorkload},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: pod},
		},
		LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { once.Do(func() { close(elected) }) },
			OnStoppedLeading: stopWork,
		},
	})
	if err != nil {
		return fmt.Errorf("elect a leader: %w", err)
	}
	go func() { defer close(deposed); elector.Run(electing) }()
	defer func() { stopElection(); <-deposed }()

	select {
	case <-ctx.Done():
		return nil
	case <-deposed:
		return fmt.Errorf("lead %s: %w", battery.ControllersWorkload, errDeposed)
	case <-elected:
	}
	log.Info("this pod leads", "lease", battery.ControllersWorkload)
	err = work(working)
	if working.Err() != nil && ctx.Err() == nil {
		return errors.Join(fmt.Errorf("lead %s: %w", battery.ControllersWorkload, errDeposed), err)
	}
	return err
}
