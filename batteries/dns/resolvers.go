package dns

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/emerald-platform/emerald/battery"
)

// hostSettings is the ConfigMap of the system namespace in which the machine
// tells what its administrator configured; hostResolvConf is its key that holds
// the machine's resolv.conf.
const (
	hostSettings   = "host"
	hostResolvConf = "resolv.conf"
)

// resolvers finds the machine's resolvers, now and whenever they change, as
// they do when a laptop moves to another network.
type resolvers struct {
	usable   func(netip.Addr) bool
	file     string // the pod's resolv.conf: that of its machine at its start
	informer cache.SharedIndexInformer
	changed  chan struct{} // one is waiting whenever the ConfigMap has changed
}

// newResolvers prepares the search; nothing is read before run.
func newResolvers(cfg *rest.Config, file string, usable func(netip.Addr) bool) (*resolvers, error) {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach the API: %w", err)
	}
	one := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, hostSettings).String()
	}
	r := &resolvers{
		usable: usable,
		file:   file,
		informer: informers.NewSharedInformerFactoryWithOptions(client, 0,
			informers.WithNamespace(battery.SystemNamespace), informers.WithTweakListOptions(one),
		).Core().V1().ConfigMaps().Informer(),
		changed: make(chan struct{}, 1),
	}
	// Only the resolvers are worth the memory: the CA bundle beside them is not.
	keep := func(obj any) (any, error) {
		if cm, ok := obj.(*corev1.ConfigMap); ok {
			cm.Data = map[string]string{hostResolvConf: cm.Data[hostResolvConf]}
			cm.ManagedFields = nil
		}
		return obj, nil
	}
	if err := r.informer.SetTransform(keep); err != nil {
		return nil, fmt.Errorf("watch the machine's settings: %w", err)
	}
	notify := func() {
		select {
		case r.changed <- struct{}{}:
		default:
		}
	}
	_, err = r.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notify() },
		UpdateFunc: func(any, any) { notify() },
		DeleteFunc: func(any) { notify() },
	})
	if err != nil {
		return nil, fmt.Errorf("watch the machine's settings: %w", err)
	}
	return r, nil
}

// run keeps the resolvers up to date until ctx ends.
func (r *resolvers) run(ctx context.Context) { r.informer.RunWithContext(ctx) }

// synced blocks until the machine's settings were read once; false when ctx
// ended before.
func (r *resolvers) synced(ctx context.Context) bool {
	return cache.WaitForCacheSync(ctx.Done(), r.informer.HasSynced)
}

// list returns the resolvers to ask, in order: those the machine last told, else
// those the pod started with. It is empty when neither names one that a pod can
// reach, for example on a machine without a network.
func (r *resolvers) list() []string {
	for _, obj := range r.informer.GetStore().List() {
		if cm, ok := obj.(*corev1.ConfigMap); ok {
			if found := nameservers([]byte(cm.Data[hostResolvConf]), r.usable); len(found) > 0 {
				return found
			}
		}
	}
	raw, err := os.ReadFile(r.file)
	if err != nil {
		return nil
	}
	return nameservers(raw, r.usable)
}
