package host

import (
	"context"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// starts knows which batteries the installer has got so far with that they can
// start: it reads the status of the Platform object. A battery that may start
// once may always; the installer never takes that back.
type starts struct {
	factory dynamicinformer.DynamicSharedInformerFactory

	mu    sync.Mutex
	doors map[string]chan struct{} // closed when the battery may start
	open  map[string]bool
}

func newStarts(kube *rest.Config) (*starts, error) {
	client, err := dynamic.NewForConfig(kube)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	one := func(o *metav1.ListOptions) { o.FieldSelector = "metadata.name=" + v1alpha1.PlatformName }
	return &starts{
		factory: dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, "", one),
		doors:   map[string]chan struct{}{}, open: map[string]bool{},
	}, nil
}

// watch follows the Platform object until ctx ends.
func (s *starts) watch(ctx context.Context) error {
	informer := s.factory.ForResource(v1alpha1.GroupVersion.WithResource("platforms")).Informer()
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    s.saw,
		UpdateFunc: func(_, o any) { s.saw(o) },
	}); err != nil {
		return fmt.Errorf("watch the Platform: %w", err)
	}
	s.factory.Start(ctx.Done())
	<-ctx.Done()
	s.factory.Shutdown()
	return nil
}

func (s *starts) saw(o any) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return
	}
	var p v1alpha1.Platform
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &p); err != nil {
		return // of another version; the next write will be of ours
	}
	for _, b := range p.Status.Batteries {
		if b.Phase == v1alpha1.PhaseStarting || b.Phase == v1alpha1.PhaseReady {
			s.let(b.Name)
		}
	}
}

func (s *starts) let(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open[name] {
		s.open[name] = true
		close(s.door(name))
	}
}

func (s *starts) door(name string) chan struct{} {
	if s.doors[name] == nil {
		s.doors[name] = make(chan struct{})
	}
	return s.doors[name]
}

// wait returns true once the battery may start, false when ctx ends first.
func (s *starts) wait(ctx context.Context, name string) bool {
	s.mu.Lock()
	door := s.door(name)
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		return false
	case <-door:
		return true
	}
}
