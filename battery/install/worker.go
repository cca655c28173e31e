package install

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

// Limits of one worker.
const (
	parallel   = 8                      // objects applied at once
	retryFirst = 200 * time.Millisecond // pause after an error, doubled up to
	retryLast  = 10 * time.Second
)

// A worker installs one battery, or the shared workloads, and keeps it
// installed. Everything in it but what mu guards belongs to its run.
//
//	          settings                 needs ready              probe
//	Waiting ───────────► Installing ─────────────► Starting ────────► Ready
//	   ▲                     │  ▲                      │                 │
//	   └── needs not ready ──┘  └──── changed, or somebody else's change ┘
//
// Off is reached from everywhere when the battery is turned off, Failed when
// the API server refuses an object; it is tried again.
type worker struct {
	in      *Installer
	name    string
	battery *battery.Battery // nil for the shared workloads and what is no more
	render  func(*plan) ([]kube.Object, error)

	wake      chan struct{}
	repairs   *rate.Limiter // keeps a fight with another writer civil
	notBefore time.Time     // of the next repair

	loaded bool
	inv    inventory
	failed bool // the last try did; what it said stays until one succeeds

	plan      *plan     // that the following is of
	refs      []ref     // rendered
	digest    string    // of the rendering
	basics    bool      // the objects others build on are applied
	whole     bool      // all are
	wholeAt   time.Time // when
	workloads map[ref]int64

	defined map[string]types.UID // definitions known to be established

	mu       sync.Mutex
	site     string          // fingerprint on the pods it should have
	sitePlan *plan           // that site is of
	seen     map[ref]version // as last applied
	touched  []touch         // what the watches have shown since
}

func newWorker(in *Installer, name string, b *battery.Battery, render func(*plan) ([]kube.Object, error)) *worker {
	return &worker{
		in: in, name: name, battery: b, render: render,
		wake:    make(chan struct{}, 1),
		repairs: rate.NewLimiter(rate.Every(10*time.Second), 5),
		defined: map[string]types.UID{},
		seen:    map[ref]version{},
	}
}

func (w *worker) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *worker) setState(phase v1alpha1.Phase, message string) {
	w.in.setState(w.name, w.plan, phase, message)
}

// run converges whenever something happened, until ctx ends.
func (w *worker) run(ctx context.Context, watches *watches) error {
	pause := time.Duration(0)
	for {
		tried := w.in.plan()
		again, err := w.converge(ctx, watches)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			pause = min(max(2*pause, retryFirst), retryLast)
			again = pause
			phase := v1alpha1.PhaseFailed
			if transient(err) {
				phase = v1alpha1.PhaseInstalling
			}
			w.failed = true
			w.setState(phase, err.Error())
		default:
			pause, w.failed = 0, false
		}
		if !w.sleep(ctx, again, tried) {
			return nil
		}
	}
}

// sleep returns when there is something to do: the time is up, where 0 is
// never, or something happened. After a failure only other settings cut the
// pause short: what happens otherwise is mostly what the failure itself causes.
// It returns false when ctx ends.
func (w *worker) sleep(ctx context.Context, d time.Duration, tried *plan) bool {
	var timer <-chan time.Time
	if d > 0 {
		timer = time.After(d)
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer:
			return true
		case <-w.wake:
			if !w.failed || w.in.plan() != tried {
				return true
			}
		}
	}
}

// converge brings the battery as far as it can get now. It returns when to try
// again though nothing happens; 0 is never.
func (w *worker) converge(ctx context.Context, watches *watches) (time.Duration, error) {
	p := w.in.plan()
	if p == nil {
		return 0, nil
	}
	if !w.loaded {
		inv, err := w.in.cluster.readInventory(ctx, w.name)
		if err != nil {
			return 0, err
		}
		w.inv, w.loaded = inv, true
	}
	if !w.on(p) {
		return 0, w.remove(ctx)
	}
	if wait := w.invalidate(p); wait > 0 {
		return wait, nil
	}
	if !w.whole {
		if waiting := w.unready(); w.basics && w.gated() && len(waiting) > 0 {
			w.waitFor(waiting)
			return 0, nil
		}
		if err := w.install(ctx, p, watches); err != nil {
			return 0, err
		}
		if !w.whole {
			return 0, nil // waits for others
		}
	}
	phase, message := w.readiness(watches)
	w.setState(phase, message)
	return max(time.Until(w.wholeAt.Add(resync)), time.Millisecond), nil
}

func (w *worker) on(p *plan) bool {
	return w.name == battery.SystemBattery || w.battery != nil && p.on[w.name]
}

// gated tells whether the battery waits for those it needs: only a rendering
// that has never run does. Repairs do not wait.
func (w *worker) gated() bool { return w.inv.applied != w.digest }

// unready returns the batteries it needs that are not ready.
func (w *worker) unready() []string {
	var out []string
	if w.battery != nil {
		for _, need := range w.battery.Needs {
			if !w.in.isReady(need, w.plan) {
				out = append(out, need)
			}
		}
	}
	return out
}

func (w *worker) waitFor(names []string) {
	w.setState(v1alpha1.PhaseWaiting, "waits for "+strings.Join(names, ", "))
}

// install renders and applies everything, in order, and then removes what is no
// longer rendered. When the battery waits for others it stops before it starts
// anything, with whole unset.
func (w *worker) install(ctx context.Context, p *plan, watches *watches) error {
	objs, err := w.render(p)
	if err != nil {
		return err
	}
	w.refs = make([]ref, len(objs))
	for i, o := range objs {
		w.refs[i] = refTo(o)
	}
	if w.digest, err = digest(objs); err != nil {
		return err
	}
	w.mu.Lock()
	w.site, w.sitePlan = fingerprint(objs), p
	w.mu.Unlock()
	if w.gated() && !w.failed {
		w.setState(v1alpha1.PhaseInstalling, "")
	}
	if err := w.keep(ctx, w.inv.with(w.refs)); err != nil {
		return err
	}
	w.workloads = map[ref]int64{}
	for _, stage := range stages(objs) {
		if stage.basic && w.basics {
			continue
		}
		if !stage.basic && w.gated() {
			w.basics = true
			if waiting := w.unready(); len(waiting) > 0 {
				w.waitFor(waiting)
				return nil
			}
			if !w.failed {
				w.setState(v1alpha1.PhaseInstalling, "")
			}
		}
		if err := w.applyStage(ctx, stage, watches); err != nil {
			return err
		}
	}
	kept, err := w.prune(ctx, w.inv.without(w.refs))
	if err != nil {
		return err
	}
	if err := w.keep(ctx, inventory{applied: w.digest}.with(w.refs).with(kept)); err != nil {
		return err
	}
	w.basics, w.whole, w.wholeAt = true, true, time.Now()
	return nil
}

// keep writes the inventory unless it is there already.
func (w *worker) keep(ctx context.Context, inv inventory) error {
	if w.inv.equal(inv) {
		return nil
	}
	if err := w.in.cluster.writeInventory(ctx, w.name, inv); err != nil {
		return err
	}
	w.inv = inv
	return nil
}

// stage is a set of objects that do not depend on each other.
type stage struct {
	basic bool
	objs  []kube.Object
}

// stages cuts sorted objects where the next ones need the ones before:
// namespaces and definitions; everything else that is basic; custom resources
// and policies; and workloads, which find all they use.
func stages(objs []kube.Object) []stage {
	out := []stage{{basic: true}, {basic: true}, {}, {}}
	for _, o := range objs {
		i := 2
		switch kind := o.GetObjectKind().GroupVersionKind().Kind; {
		case kind == "Namespace" || kind == "CustomResourceDefinition" || kind == "PriorityClass":
			i = 0
		case kube.Basic(o):
			i = 1
		case slices.Contains(workloadKinds, kind):
			i = 3
		}
		out[i].objs = append(out[i].objs, o)
	}
	return out
}

var workloadKinds = []string{"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod"}

func (w *worker) applyStage(ctx context.Context, s stage, watches *watches) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, o := range s.objs {
		g.Go(func() error { return w.apply(ctx, o, watches) })
	}
	return g.Wait()
}

func (w *worker) apply(ctx context.Context, o kube.Object, watches *watches) error {
	got, err := w.in.cluster.apply(ctx, o)
	if err != nil {
		return err
	}
	r := refTo(o)
	w.mu.Lock()
	w.seen[r] = version{generation: got.Generation, resource: got.ResourceVersion}
	if slices.Contains(workloadKinds, r.Kind) {
		w.workloads[r] = got.Generation
	}
	established := r.Kind == "CustomResourceDefinition" && w.defined[r.Name] == got.UID
	w.mu.Unlock()
	if r.Kind == "CustomResourceDefinition" && !established {
		if err := w.in.cluster.establish(ctx, r.Name); err != nil {
			return err
		}
		w.mu.Lock()
		w.defined[r.Name] = got.UID
		w.mu.Unlock()
	}
	return watches.watch(r)
}

// remove takes the battery away, once nothing that needs it is left.
func (w *worker) remove(ctx context.Context) error {
	w.plan = nil
	var users []string
	for _, other := range w.in.options.Batteries {
		if slices.Contains(other.Needs, w.name) && w.in.phaseOf(other.Name) != v1alpha1.PhaseOff {
			users = append(users, other.Name)
		}
	}
	if len(users) > 0 {
		w.setState(v1alpha1.PhaseWaiting, "is turned off when these are gone: "+strings.Join(users, ", "))
		return nil
	}
	w.mu.Lock()
	clear(w.seen) // what is deleted now is not to be repaired
	w.touched = nil
	w.mu.Unlock()
	kept, err := w.prune(ctx, w.inv.without(nil))
	if err != nil {
		return err
	}
	if err := w.keep(ctx, inventory{}.with(kept)); err != nil {
		return err
	}
	if w.battery == nil && len(kept) == 0 {
		w.in.forget(w.name)
		return nil
	}
	message := ""
	if len(kept) > 0 {
		message = "keeps what users have in " + join(kept)
	}
	w.setState(v1alpha1.PhaseOff, message)
	return nil
}

func join(refs []ref) string {
	words := make([]string, len(refs))
	for i, r := range refs {
		words[i] = r.String()
	}
	return strings.Join(words, ", ")
}

// digest returns a fingerprint of a rendering.
func digest(objs []kube.Object) (string, error) {
	h := sha256.New()
	enc := json.NewEncoder(h)
	for _, o := range objs {
		if err := enc.Encode(o); err != nil {
			return "", fmt.Errorf("encode %s: %w", refTo(o), err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}
