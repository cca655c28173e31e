// Package entry makes the machines' own addresses lead into the cluster: to
// Services of type LoadBalancer with the class [Class].
//
// It promises that such a Service is reached at every machine's address and, on
// a machine that runs one of its pods, at 127.0.0.1, and that connections go to
// pods that are ready. Unlike a pod's host port, the way in belongs to the
// Service: pods can be replaced on one machine without a moment in which nobody
// listens, and connections that are open stay where they are.
//
// It refuses to balance for other classes, and to lead 127.0.0.1 to other
// machines.
//
// Two parts do it. The Service's status gets the machines' addresses, by which
// kube-proxy leads connections to them. And an nftables table of its own leads
// the machine's connections to itself, which kube-proxy leaves alone.
//
// Invariant: the table is a pure function of the Services, their endpoints and
// the machine's name; it is replaced as a whole.
package entry

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Class is the class of load balancers that are the machines themselves.
const Class = "emerald.dev/machine"

// Options are what [Run] needs. All must be set.
type Options struct {
	// Kube may watch Services, EndpointSlices and Nodes, and may update the
	// status of Services; where it may not, some other machine does that.
	Kube *rest.Config
	// Node is the machine's own name in the cluster.
	Node string
	Log  *slog.Logger
}

// Run keeps the way in open until ctx ends; then it closes what leads to
// 127.0.0.1 and returns nil.
func Run(ctx context.Context, o Options) error {
	client, err := kubernetes.NewForConfig(o.Kube)
	if err != nil {
		return fmt.Errorf("reach the API: %w", err)
	}
	e := &entry{
		Options: o, client: client, table: newTable(), changed: make(chan struct{}, 1),
		followed: map[types.NamespacedName]*followed{},
	}
	defer e.stop()
	return e.run(ctx)
}

// entry is the state of one Run.
type entry struct {
	Options
	client   kubernetes.Interface
	table    *table
	changed  chan struct{}
	services cache.SharedIndexInformer
	nodes    cache.SharedIndexInformer

	// followed are the Services whose endpoints are watched. It is used by the
	// run loop alone.
	followed map[types.NamespacedName]*followed
	waiting  sync.WaitGroup
	refused  bool
}

// followed is the watch on one Service's endpoints.
type followed struct {
	slices cache.SharedIndexInformer
	cancel context.CancelFunc
}

func (e *entry) run(ctx context.Context) error {
	loadBalancers := informers.NewSharedInformerFactoryWithOptions(e.client, 0, informers.WithTweakListOptions(func(l *metav1.ListOptions) {
		l.FieldSelector = fields.OneTermEqualSelector("spec.type", string(corev1.ServiceTypeLoadBalancer)).String()
	}), informers.WithTransform(withoutHistory))
	machines := informers.NewSharedInformerFactoryWithOptions(e.client, 0, informers.WithTransform(onlyAddresses))
	e.services = loadBalancers.Core().V1().Services().Informer()
	e.nodes = machines.Core().V1().Nodes().Informer()
	for _, i := range []cache.SharedIndexInformer{e.services, e.nodes} {
		if err := e.listen(i); err != nil {
			return err
		}
		e.start(ctx, i)
	}
	if !cache.WaitForCacheSync(ctx.Done(), e.services.HasSynced, e.nodes.HasSynced) {
		return nil
	}
	// What somebody else removed is put back, even when nothing changes.
	heal := time.NewTicker(30 * time.Second)
	defer heal.Stop()
	for {
		if err := e.sync(ctx); err != nil && ctx.Err() == nil {
			e.Log.WarnContext(ctx, "lead the machine's ports into the cluster, will retry", "error", err)
			e.table.forget()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-heal.C:
			e.table.forget()
		case <-e.changed:
		}
	}
}

// stop ends the watches and removes the table.
func (e *entry) stop() {
	for _, f := range e.followed {
		f.cancel()
	}
	e.waiting.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := e.table.remove(ctx); err != nil {
		e.Log.WarnContext(ctx, "remove the way to 127.0.0.1", "error", err)
	}
}

// start runs an informer until ctx ends; stop waits for it.
func (e *entry) start(ctx context.Context, i cache.SharedIndexInformer) {
	e.waiting.Add(1)
	go func() {
		defer e.waiting.Done()
		i.RunWithContext(ctx)
	}()
}

// listen wakes the run loop at every change.
func (e *entry) listen(i cache.SharedIndexInformer) error {
	wake := func(any) { e.wake() }
	_, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: wake, UpdateFunc: func(_, _ any) { e.wake() }, DeleteFunc: wake})
	if err != nil {
		return fmt.Errorf("watch the cluster: %w", err)
	}
	return nil
}

func (e *entry) wake() {
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

// withoutHistory drops who changed what when.
func withoutHistory(o any) (any, error) {
	if m, ok := o.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	return o, nil
}

// onlyAddresses drops what is not needed of nodes, which are large.
func onlyAddresses(o any) (any, error) {
	if n, ok := o.(*corev1.Node); ok {
		n.ObjectMeta = metav1.ObjectMeta{Name: n.Name, UID: n.UID, ResourceVersion: n.ResourceVersion}
		n.Spec = corev1.NodeSpec{}
		n.Status = corev1.NodeStatus{Addresses: n.Status.Addresses, Conditions: n.Status.Conditions}
	}
	return o, nil
}

// sync makes statuses and table what they should be.
func (e *entry) sync(ctx context.Context) error {
	ours := map[types.NamespacedName]*corev1.Service{}
	for _, o := range e.services.GetStore().List() {
		s, ok := o.(*corev1.Service)
		if ok && s.Spec.LoadBalancerClass != nil && *s.Spec.LoadBalancerClass == Class && s.DeletionTimestamp == nil {
			ours[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = s
		}
	}
	if err := e.follow(ctx, ours); err != nil {
		return err
	}
	var ways []way
	complete := true
	for name, s := range ours {
		f := e.followed[name]
		complete = complete && f.slices.HasSynced()
		ways = append(ways, waysOf(s, endpointSlices(f.slices), e.Node)...)
	}
	// The table may be there from before this process: what is not known yet
	// must not be taken out of it.
	if complete {
		if err := e.table.write(ctx, ways); err != nil {
			return err
		}
	}
	for _, s := range ours {
		if err := e.publish(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// follow watches the endpoints of exactly these Services.
func (e *entry) follow(ctx context.Context, ours map[types.NamespacedName]*corev1.Service) error {
	for name, f := range e.followed {
		if ours[name] == nil {
			f.cancel()
			delete(e.followed, name)
		}
	}
	for name := range ours {
		if e.followed[name] != nil {
			continue
		}
		factory := informers.NewSharedInformerFactoryWithOptions(e.client, 0, informers.WithNamespace(name.Namespace), informers.WithTweakListOptions(func(l *metav1.ListOptions) {
			l.LabelSelector = labels.Set{discoveryv1.LabelServiceName: name.Name}.String()
		}))
		i := factory.Discovery().V1().EndpointSlices().Informer()
		if err := e.listen(i); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(ctx)
		e.followed[name] = &followed{slices: i, cancel: cancel}
		e.start(ctx, i)
		// A Service without endpoints brings no event.
		e.waiting.Go(func() {
			if cache.WaitForCacheSync(ctx.Done(), i.HasSynced) {
				e.wake()
			}
		})
	}
	return nil
}

func endpointSlices(i cache.SharedIndexInformer) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for _, o := range i.GetStore().List() {
		if s, ok := o.(*discoveryv1.EndpointSlice); ok {
			out = append(out, s)
		}
	}
	return out
}

// publish writes the machines' addresses into a Service's status. Every
// machine would write the same.
func (e *entry) publish(ctx context.Context, s *corev1.Service) error {
	want := corev1.LoadBalancerStatus{}
	mode := corev1.LoadBalancerIPModeVIP
	for _, address := range machineAddresses(e.nodes) {
		want.Ingress = append(want.Ingress, corev1.LoadBalancerIngress{IP: address, IPMode: &mode})
	}
	if equality.Semantic.DeepEqual(s.Status.LoadBalancer, want) || e.refused {
		return nil
	}
	s = s.DeepCopy()
	s.Status.LoadBalancer = want
	_, err := e.client.CoreV1().Services(s.Namespace).UpdateStatus(ctx, s, metav1.UpdateOptions{})
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return nil // its change wakes us again
	case apierrors.IsForbidden(err):
		e.refused = true // a server does it
		return nil
	case err != nil:
		return fmt.Errorf("write the machines' addresses into Service %s/%s: %w", s.Namespace, s.Name, err)
	}
	return nil
}

// machineAddresses returns the addresses of all machines, sorted.
func machineAddresses(nodes cache.SharedIndexInformer) []string {
	found := map[string]bool{}
	for _, o := range nodes.GetStore().List() {
		n, ok := o.(*corev1.Node)
		if !ok {
			continue
		}
		for _, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				found[a.Address] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}
