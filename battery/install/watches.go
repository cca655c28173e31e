package install

import (
	"context"
	"fmt"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
)

// watches show the installer what happens in the cluster: the settings, the
// machines, the state of the workloads, and every change of an object it has
// applied. They hold no more of each object than they need.
type watches struct {
	in       *Installer
	settings chan struct{} // the Platform object or the machines changed

	typed     informers.SharedInformerFactory              // workloads and their pods
	machine   metadatainformer.SharedInformerFactory       // nodes
	platforms dynamicinformer.DynamicSharedInformerFactory // the Platform object
	applied   metadatainformer.SharedInformerFactory       // all that is labelled

	mu    sync.Mutex
	done  <-chan struct{} // ends the informers begun later
	kinds map[schema.GroupVersionKind]bool
}

func newWatches(in *Installer) *watches {
	labelled := func(o *metav1.ListOptions) { o.LabelSelector = battery.LabelBattery }
	one := func(o *metav1.ListOptions) { o.FieldSelector = "metadata.name=" + v1alpha1.PlatformName }
	c := in.cluster
	return &watches{
		in:       in,
		settings: make(chan struct{}, 1),
		typed: informers.NewSharedInformerFactoryWithOptions(c.client, 0,
			informers.WithTweakListOptions(labelled), informers.WithTransform(slim)),
		machine:   metadatainformer.NewSharedInformerFactory(c.objects, 0),
		platforms: dynamicinformer.NewFilteredDynamicSharedInformerFactory(c.dynamic, 0, "", one),
		applied:   metadatainformer.NewFilteredSharedInformerFactory(c.objects, 0, "", labelled),
		kinds:     map[schema.GroupVersionKind]bool{},
	}
}

// slim drops what nobody here reads from an object before it is kept.
func slim(o any) (any, error) {
	if m, err := meta.Accessor(o); err == nil {
		m.SetManagedFields(nil)
	}
	if p, ok := o.(*corev1.Pod); ok {
		p.Spec = corev1.PodSpec{NodeName: p.Spec.NodeName}
	}
	return o, nil
}

var nodes = corev1.SchemeGroupVersion.WithResource("nodes")

// start begins to watch and returns once the present state is known.
func (w *watches) start(ctx context.Context) error {
	w.done = ctx.Done()
	wake := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { w.in.wakeAll() },
		UpdateFunc: func(_, _ any) { w.in.wakeAll() },
		DeleteFunc: func(any) { w.in.wakeAll() },
	}
	for _, i := range []cache.SharedIndexInformer{
		w.typed.Apps().V1().Deployments().Informer(), w.typed.Apps().V1().StatefulSets().Informer(),
		w.typed.Apps().V1().DaemonSets().Informer(), w.typed.Core().V1().Pods().Informer(),
	} {
		if _, err := i.AddEventHandler(wake); err != nil {
			return fmt.Errorf("watch the workloads: %w", err)
		}
	}
	settle := func(any) { w.settle() }
	machines := w.machine.ForResource(nodes).Informer()
	if _, err := machines.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: settle, DeleteFunc: settle}); err != nil {
		return fmt.Errorf("watch the machines: %w", err)
	}
	_, err := w.platforms.ForResource(platforms).Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: settle, DeleteFunc: settle,
		UpdateFunc: func(old, new any) {
			// Our own writing of the status is no news.
			if a, b := old.(metav1.Object), new.(metav1.Object); a.GetGeneration() != b.GetGeneration() || a.GetUID() != b.GetUID() {
				w.settle()
			}
		},
	})
	if err != nil {
		return fmt.Errorf("watch the Platform: %w", err)
	}
	w.typed.Start(ctx.Done())
	w.machine.Start(ctx.Done())
	w.platforms.Start(ctx.Done())
	w.typed.WaitForCacheSync(ctx.Done())
	w.machine.WaitForCacheSync(ctx.Done())
	w.platforms.WaitForCacheSync(ctx.Done())
	return ctx.Err()
}

// stop waits for the end of the watches, whose context has ended.
func (w *watches) stop() {
	w.typed.Shutdown()
	w.machine.Shutdown()
	w.platforms.Shutdown()
	w.applied.Shutdown()
}

func (w *watches) settle() {
	select {
	case w.settings <- struct{}{}:
	default:
	}
}

// machines returns how many there are.
func (w *watches) machines() int32 {
	return int32(len(w.machine.ForResource(nodes).Informer().GetStore().ListKeys()))
}

// platform returns the Platform object, nil when there is none.
func (w *watches) platform() (*v1alpha1.Platform, error) {
	o, found, err := w.platforms.ForResource(platforms).Informer().GetStore().GetByKey(v1alpha1.PlatformName)
	if err != nil || !found {
		return nil, err
	}
	p := &v1alpha1.Platform{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.(*unstructured.Unstructured).Object, p); err != nil {
		return nil, fmt.Errorf("decode the Platform: %w", err)
	}
	return p, nil
}

// watch begins to watch the objects of the kind of r that we applied, unless
// they are watched already.
func (w *watches) watch(r ref) error {
	gvk := r.kind()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.kinds[gvk] {
		return nil
	}
	m, err := w.in.cluster.resource(gvk)
	if err != nil {
		return err
	}
	_, err = w.applied.ForResource(m.Resource).Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { w.saw(gvk, o, false) },
		UpdateFunc: func(_, o any) { w.saw(gvk, o, false) },
		DeleteFunc: func(o any) {
			if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			w.saw(gvk, o, true)
		},
	})
	if err != nil {
		return fmt.Errorf("watch objects of kind %s: %w", gvk.Kind, err)
	}
	w.kinds[gvk] = true
	w.applied.Start(w.done)
	return nil
}

// saw tells the battery an object belongs to that it changed. An object that
// loses the label is seen as deleted: the watch is for those that have it.
func (w *watches) saw(gvk schema.GroupVersionKind, o any, deleted bool) {
	m, err := meta.Accessor(o)
	if err != nil {
		return
	}
	wk := w.in.workers[m.GetLabels()[battery.LabelBattery]]
	if wk == nil {
		return
	}
	r := ref{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind, Namespace: m.GetNamespace(), Name: m.GetName()}
	wk.touch(touch{ref: r, deleted: deleted, version: version{generation: m.GetGeneration(), resource: m.GetResourceVersion()}})
}

// deployment, statefulSet and daemonSet return a battery's workload as last
// seen, nil when it was not.
func (w *watches) deployment(namespace, name string) *appsv1.Deployment {
	d, err := w.typed.Apps().V1().Deployments().Lister().Deployments(namespace).Get(name)
	if err != nil {
		return nil
	}
	return d
}

func (w *watches) statefulSet(namespace, name string) *appsv1.StatefulSet {
	s, err := w.typed.Apps().V1().StatefulSets().Lister().StatefulSets(namespace).Get(name)
	if err != nil {
		return nil
	}
	return s
}

func (w *watches) daemonSet(namespace, name string) *appsv1.DaemonSet {
	d, err := w.typed.Apps().V1().DaemonSets().Lister().DaemonSets(namespace).Get(name)
	if err != nil {
		return nil
	}
	return d
}

// pods returns the pods with these labels.
func (w *watches) pods(namespace string, match map[string]string) []*corev1.Pod {
	pods, err := w.typed.Core().V1().Pods().Lister().Pods(namespace).List(selector(match))
	if err != nil {
		return nil
	}
	return pods
}
