// Package control connects the data plane with the cluster: it watches the
// objects of the Gateway API and those they refer to, translates them whenever
// they change, applies the result to the data plane, and, on one replica of
// several, writes the statuses and Services.
//
// It promises that the data plane follows endpoints at once and everything
// else within a fraction of a second, and that it keeps serving what it knows
// while the API cannot be reached.
//
// It refuses to hold secrets it does not need: of Secrets it watches the
// metadata, and reads those that listeners refer to and are allowed to.
//
// Invariant: statuses are written only after the configuration they describe
// was applied to this replica's data plane.
package control

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/translate"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/upstream"
)

// DataPlane is what a Controller steers.
type DataPlane interface {
	Apply(*model.Config) error
	SetEndpoints(upstream.Service, []string)
}

// Options are what a Controller needs. All must be set.
type Options struct {
	Kube     *rest.Config
	Log      *slog.Logger
	Settings translate.Settings
	Data     DataPlane
	// Identity tells replicas apart, such as the pod's name.
	Identity string
	// ServiceType is the type of the Services made for gateways.
	ServiceType corev1.ServiceType
	// Selector selects the pods of the data plane.
	Selector map[string]string
	// Ready is called when the first configuration is in force.
	Ready func()
}

// Controller steers a data plane.
type Controller struct {
	Options
	cache    cache.Cache
	client   client.Client
	material *material

	changed chan struct{} // something needs a new translation
	ready   sync.Once

	mu sync.Mutex
	// wanted are the Service ports whose endpoints are followed.
	wanted map[types.NamespacedName][]int32
	stale  map[types.NamespacedName]bool // Services whose endpoints changed
	moved  chan struct{}

	setting sync.Mutex

	result    atomic.Pointer[translate.Result]
	published chan struct{} // a new result, for the status writer
}

// NewScheme returns a scheme with the types that a Controller reads.
func NewScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(s); err != nil {
		return nil, fmt.Errorf("build the scheme: %w", err)
	}
	if err := gatewayv1.Install(s); err != nil {
		return nil, fmt.Errorf("build the scheme: %w", err)
	}
	return s, nil
}

// New returns a Controller that does nothing yet.
func New(opts Options) (*Controller, error) {
	scheme, err := NewScheme()
	if err != nil {
		return nil, err
	}
	kube := rest.CopyConfig(opts.Kube)
	kube.QPS = -1 // the server has its own fair queues
	cl, err := client.New(kube, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	c, err := newCache(kube, scheme)
	if err != nil {
		return nil, err
	}
	return &Controller{
		Options: opts, cache: c, client: cl, material: newMaterial(cl),
		changed: make(chan struct{}, 1), moved: make(chan struct{}, 1), published: make(chan struct{}, 1),
		wanted: map[types.NamespacedName][]int32{}, stale: map[types.NamespacedName]bool{},
	}, nil
}

// Run steers until ctx ends. It returns nil then.
func (c *Controller) Run(ctx context.Context) error {
	if err := c.watch(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.cache.Start(ctx) })
	group.Go(func() error {
		if !c.cache.WaitForCacheSync(ctx) {
			return nil
		}
		inner, ctx := errgroup.WithContext(ctx)
		inner.Go(func() error { return c.translateLoop(ctx) })
		inner.Go(func() error { return c.endpointLoop(ctx) })
		inner.Go(func() error { return c.lead(ctx) })
		return inner.Wait()
	})
	return group.Wait()
}

// poke wakes a loop, which need not be waiting.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// gather is how long changes are collected before they are translated: objects
// that belong together are mostly written together.
const gather = 10 * time.Millisecond

// translateLoop translates after changes, and leaves at least as much time
// between translations as they take.
func (c *Controller) translateLoop(ctx context.Context) error {
	refresh := time.NewTicker(time.Minute)
	defer refresh.Stop()
	poke(c.changed)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-refresh.C:
			if !c.material.refresh() {
				continue
			}
		case <-c.changed:
		}
		if !wait(ctx, gather) {
			return nil
		}
		select {
		case <-c.changed: // what came meanwhile is covered
		default:
		}
		began := time.Now()
		if err := c.translate(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			c.Log.ErrorContext(ctx, "translate", "error", err)
			if !wait(ctx, time.Second) {
				return nil
			}
			poke(c.changed)
		}
		if !wait(ctx, min(time.Since(began), 2*time.Second)) {
			return nil
		}
	}
}

// wait waits, unless ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// translate translates what is known and applies it.
func (c *Controller) translate(ctx context.Context) error {
	objects, err := c.snapshot(ctx)
	if err != nil {
		return err
	}
	objects.Material = c.material.known()
	result := translate.Translate(c.Settings, objects)
	// What it asks for may ask for no more: references do not chain.
	if c.material.fetch(ctx, result.Needs) {
		objects.Material = c.material.known()
		result = translate.Translate(c.Settings, objects)
	}
	forget := c.follow(ctx, result.Endpoints)
	if err := c.Data.Apply(&result.Config); err != nil {
		// The rest is in force; the next change, or the next refresh, tries
		// again.
		c.Log.ErrorContext(ctx, "apply the configuration", "error", err)
	}
	// Only now nothing leads to them any more.
	forget()
	c.result.Store(result)
	poke(c.published)
	c.ready.Do(c.Ready)
	return nil
}

// follow makes the given Service ports the ones whose endpoints are followed.
// All are set before it returns. What it returns forgets the endpoints of the
// others, once no configuration uses them.
func (c *Controller) follow(ctx context.Context, ports []upstream.Service) (forget func()) {
	wanted := map[types.NamespacedName][]int32{}
	for _, p := range ports {
		name := types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
		wanted[name] = append(wanted[name], p.Port)
	}
	c.mu.Lock()
	old := c.wanted
	c.wanted = wanted
	c.mu.Unlock()
	for name := range maps.Keys(wanted) {
		// Also those known already: the Service's ports may have new names.
		c.setEndpoints(ctx, name, wanted[name])
	}
	return func() {
		for name, ports := range old {
			for _, port := range ports {
				if !contains(wanted[name], port) {
					c.Data.SetEndpoints(upstream.Service{Namespace: name.Namespace, Name: name.Name, Port: port}, nil)
				}
			}
		}
	}
}

func contains(list []int32, want int32) bool {
	for _, v := range list {
		if v == want {
			return true
		}
	}
	return false
}

// endpointLoop sets the endpoints of Services when they change.
func (c *Controller) endpointLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.moved:
		}
		c.mu.Lock()
		stale, wanted := c.stale, c.wanted
		c.stale = map[types.NamespacedName]bool{}
		c.mu.Unlock()
		for name := range stale {
			if ports := wanted[name]; len(ports) > 0 {
				c.setEndpoints(ctx, name, ports)
			}
		}
	}
}

// setEndpoints tells the data plane the endpoints of a Service's ports as they
// are in the cache.
func (c *Controller) setEndpoints(ctx context.Context, name types.NamespacedName, ports []int32) {
	c.setting.Lock() // what was read last must be set last
	defer c.setting.Unlock()
	var service corev1.Service
	if err := c.cache.Get(ctx, name, &service); err != nil {
		return // gone: the next translation no longer wants it
	}
	var slices discoveryv1.EndpointSliceList
	if err := c.cache.List(ctx, &slices, client.InNamespace(name.Namespace), client.MatchingFields{serviceIndex: name.Name}); err != nil {
		c.Log.ErrorContext(ctx, "list endpoints", "service", name.String(), "error", err)
		return
	}
	for _, port := range ports {
		c.Data.SetEndpoints(upstream.Service{Namespace: name.Namespace, Name: name.Name, Port: port}, translate.Addresses(&service, port, slices.Items))
	}
}

// now is the time for conditions.
func now() metav1.Time { return metav1.Now() }
