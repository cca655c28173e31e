// Package install puts the batteries into a cluster and keeps them as they
// should be.
//
// It promises that what the batteries render is what the cluster has: it
// applies every object server-side under one field manager, starts a battery
// the moment those it needs are ready, repairs what others change or delete,
// removes what is no longer rendered, and can say at any time what it waits
// for. It follows the Platform object and the number of machines live.
//
// It refuses settings it cannot follow: the Platform object gets a condition
// that says why, and the last good settings stay in force. It never removes
// what users keep in the cluster: definitions of which objects exist, and
// namespaces that hold volumes or secrets.
//
// Invariant: whatever the installer has ever applied and not removed is named
// in an inventory in the cluster, written before the first of it is applied, so
// that a crash leaves nothing behind that nobody knows of.
package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

// Options say what to install, where.
type Options struct {
	// Kube reaches the cluster with the rights of an administrator. Required.
	Kube *rest.Config

	// Batteries is the whole list. Required, and valid; see battery.Validate.
	Batteries []battery.Battery

	// Site holds what is the same for all batteries: Image, ClusterDomain,
	// DNSAddress, RegistryAddress, DataDir, the Domain until a Platform object
	// names another, and Replicas, where 0 means 1 on a single machine and 2 on
	// more. Its other fields are not used.
	Site battery.Site

	// FixedDomain says that the domain in Site cannot change: settings that name
	// another are refused.
	FixedDomain bool

	// Change, when not nil, changes the spec of the Platform object, or of the
	// one that is made, before anything is installed. It may be called more than
	// once. Changed is called when the object says so.
	Change  func(*v1alpha1.PlatformSpec)
	Changed func() error

	// Version of the platform, shown in the status of the Platform object.
	Version string

	// Log gets one line for every phase a battery enters. Nil discards.
	Log *slog.Logger

	// Progress is called with the state of all batteries whenever it has
	// changed, and never twice at once. It must not block for long. Nil is fine.
	Progress func([]v1alpha1.BatteryStatus)
}

// resync is how often everything is applied again though nobody was seen to
// change it. It only mends what no watch can show.
const resync = 10 * time.Minute

// Installer installs batteries. Make it with [New], call Run once.
type Installer struct {
	options Options
	cluster *cluster
	log     *slog.Logger

	workers map[string]*worker
	changed chan struct{} // a state changed: report it

	mu       sync.Mutex
	current  *plan // nil until the first settings are known
	accepted metav1.Condition
	states   map[string]state
}

// state is the state of one battery.
type state struct {
	plan    *plan // that it has come to that state with
	phase   v1alpha1.Phase
	message string
	since   time.Time
}

// New returns an Installer. It fails on a list that is not valid and on a
// broken client configuration; it does not talk to the cluster yet.
func New(o Options) (*Installer, error) {
	if err := battery.Validate(o.Batteries); err != nil {
		return nil, fmt.Errorf("install batteries: %w", err)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c, err := newCluster(o.Kube)
	if err != nil {
		return nil, fmt.Errorf("install batteries: %w", err)
	}
	in := &Installer{
		options: o, cluster: c, log: o.Log,
		workers: map[string]*worker{},
		changed: make(chan struct{}, 1),
		states:  map[string]state{},
	}
	in.workers[battery.SystemBattery] = newWorker(in, battery.SystemBattery, nil, in.renderShared)
	for i := range o.Batteries {
		b := &o.Batteries[i]
		in.workers[b.Name] = newWorker(in, b.Name, b, func(p *plan) ([]kube.Object, error) {
			return battery.Complete(b, p.siteOf(b))
		})
	}
	now := time.Now()
	for name := range in.workers {
		in.states[name] = state{phase: v1alpha1.PhaseWaiting, message: "waits for the API server", since: now}
	}
	return in, nil
}

func (in *Installer) renderShared(p *plan) ([]kube.Object, error) {
	var on []battery.Battery
	for _, b := range in.options.Batteries {
		if p.on[b.Name] {
			on = append(on, b)
		}
	}
	return battery.Shared(on, p.configs, p.site)
}

// Run installs the batteries and keeps them installed until ctx ends, then
// returns nil. It waits for an API server that is not up yet. It returns an
// error only when it cannot go on at all.
//
// One Installer at a time may run against a cluster: the caller holds a lease.
func (in *Installer) Run(ctx context.Context) error {
	if err := in.prepare(ctx); err != nil {
		return stopped(ctx, err)
	}
	g, ctx := errgroup.WithContext(ctx)
	w := newWatches(in)
	// Whoever reads the state must find what the cluster has already.
	if err := w.start(ctx); err != nil {
		w.stop()
		return stopped(ctx, err)
	}
	g.Go(func() error { return in.settle(ctx, w) })
	g.Go(func() error { return in.report(ctx) })
	for _, wk := range in.workers {
		g.Go(func() error { return wk.run(ctx, w) })
	}
	err := g.Wait()
	w.stop()
	return stopped(ctx, err)
}

// stopped turns the error of a stopped run into nil.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err()) || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// Status returns the state of every battery, sorted by name, and among them that
// of the shared workloads under the name battery.SystemBattery. It can be called
// at any time.
func (in *Installer) Status() []v1alpha1.BatteryStatus {
	in.mu.Lock()
	defer in.mu.Unlock()
	var out []v1alpha1.BatteryStatus
	for name, s := range in.states {
		out = append(out, v1alpha1.BatteryStatus{
			Name: name, Phase: s.phase, Message: s.message, Since: metav1.NewTime(s.since),
		})
	}
	slices.SortFunc(out, func(a, b v1alpha1.BatteryStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// setState records the state of a battery, and wakes those who care.
func (in *Installer) setState(name string, p *plan, phase v1alpha1.Phase, message string) {
	in.mu.Lock()
	old := in.states[name]
	if old.phase == phase && old.message == message && old.plan == p {
		in.mu.Unlock()
		return
	}
	since := old.since
	if old.phase != phase {
		since = time.Now()
	}
	in.states[name] = state{plan: p, phase: phase, message: message, since: since}
	in.mu.Unlock()
	if old.phase != phase {
		in.log.Info("battery", "battery", name, "phase", string(phase), "message", message)
	}
	if old.phase != phase || old.plan != p {
		in.wakeAll()
	}
	in.notify()
}

// forget drops a battery that no longer exists.
func (in *Installer) forget(name string) {
	in.mu.Lock()
	_, known := in.states[name]
	delete(in.states, name)
	in.mu.Unlock()
	if !known {
		return
	}
	in.wakeAll()
	in.notify()
}

// phaseOf returns the phase of a battery.
func (in *Installer) phaseOf(name string) v1alpha1.Phase {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.states[name].phase
}

// isReady tells whether a battery does its job as the plan wants it.
func (in *Installer) isReady(name string, p *plan) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	s := in.states[name]
	return s.phase == v1alpha1.PhaseReady && s.plan == p
}

// plan returns the settings in force, nil while none are known.
func (in *Installer) plan() *plan {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.current
}

func (in *Installer) wakeAll() {
	for _, w := range in.workers {
		w.wakeUp()
	}
}

func (in *Installer) notify() {
	select {
	case in.changed <- struct{}{}:
	default:
	}
}
