package apps

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
)

// indexHost is the cache's index of Apps and HTTPRoutes by host name.
const indexHost = "host"

// run watches Apps and what is made from them until ctx ends.
func run(ctx context.Context, s battery.Site) error {
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	ofApps, err := labels.NewRequirement(v1alpha1.LabelApp, selection.Exists, nil)
	if err != nil {
		return fmt.Errorf("select objects of apps: %w", err)
	}
	mine := cache.ByObject{Label: labels.NewSelector().Add(*ofApps)}
	mgr, err := manager.New(s.Kube, manager.Options{
		Scheme: scheme,
		Logger: logr.FromSlogHandler(s.Log.Handler()),
		// The process around this battery serves metrics and health, and was
		// elected before it called Run.
		Metrics: server.Options{BindAddress: "0"},
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Pod{}: mine, &corev1.Service{}: mine, &corev1.ServiceAccount{}: mine,
				&appsv1.Deployment{}: mine, &appsv1.ControllerRevision{}: mine,
				&policyv1.PodDisruptionBudget{}: mine, &gatewayv1.ListenerSet{}: mine,
			},
		},
	})
	if err != nil {
		return fmt.Errorf("make the controller manager: %w", err)
	}
	if err := addIndexes(ctx, mgr, s.Domain); err != nil {
		return err
	}
	r := &reconciler{
		client: mgr.GetClient(), live: mgr.GetAPIReader(), site: s, log: s.Log,
		applied: map[objectKey]appliedObject{},
	}
	if err := r.watch(mgr); err != nil {
		return err
	}
	if err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		if mgr.GetCache().WaitForCacheSync(ctx) {
			s.Ready()
		}
		return nil
	})); err != nil {
		return fmt.Errorf("watch for readiness: %w", err)
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run the controllers: %w", err)
	}
	return nil
}

// newScheme returns a scheme of every type this battery handles.
func newScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, gatewayv1.Install, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("build the scheme: %w", err)
		}
	}
	return s, nil
}

func addIndexes(ctx context.Context, mgr manager.Manager, domain string) error {
	appHosts := func(o client.Object) []string { return hostsOf(o.(*v1alpha1.App), domain) }
	routeHosts := func(o client.Object) []string {
		var out []string
		for _, h := range o.(*gatewayv1.HTTPRoute).Spec.Hostnames {
			out = append(out, string(h))
		}
		return out
	}
	if err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.App{}, indexHost, appHosts); err != nil {
		return fmt.Errorf("index apps by host: %w", err)
	}
	if err := mgr.GetFieldIndexer().IndexField(ctx, &gatewayv1.HTTPRoute{}, indexHost, routeHosts); err != nil {
		return fmt.Errorf("index routes by host: %w", err)
	}
	return nil
}

// watch starts the one controller. It has one worker: host names are given out
// one App at a time.
func (r *reconciler) watch(mgr manager.Manager) error {
	podsApp := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetLabels()[v1alpha1.LabelApp]}}}
	})
	yes := true
	err := builder.ControllerManagedBy(mgr).
		Named("apps").
		WithOptions(controller.Options{
			MaxConcurrentReconciles: 1, SkipNameValidation: &yes,
			// The default forgets nothing for up to 17 minutes; an App is
			// something a person waits for.
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryFirst, retryLast),
		}).
		For(&v1alpha1.App{}).
		Owns(&appsv1.Deployment{}).
		Owns(&corev1.Service{}).
		Owns(&corev1.ServiceAccount{}).
		Owns(&policyv1.PodDisruptionBudget{}).
		Owns(&gatewayv1.HTTPRoute{}).
		Owns(&gatewayv1.ListenerSet{}).
		Watches(&corev1.Pod{}, podsApp).
		Watches(&v1alpha1.App{}, r.freed()).
		Watches(&gatewayv1.HTTPRoute{}, r.freed()).
		Complete(r)
	if err != nil {
		return fmt.Errorf("make the controller of apps: %w", err)
	}
	return nil
}

// freed wakes the Apps that may want the host names of something deleted.
func (r *reconciler) freed() handler.EventHandler {
	return handler.Funcs{DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
		var hosts []string
		switch o := e.Object.(type) {
		case *v1alpha1.App:
			hosts = hostsOf(o, r.site.Domain)
			// Unless it was made anew already, what it held is free from here
			// on, whoever is looked at first.
			err := r.client.Get(ctx, client.ObjectKeyFromObject(o), &v1alpha1.App{})
			if apierrors.IsNotFound(err) {
				r.claims.drop(o.Namespace, o.Name)
			}
		case *gatewayv1.HTTPRoute:
			for _, h := range o.Spec.Hostnames {
				hosts = append(hosts, string(h))
			}
		}
		for _, host := range hosts {
			var apps v1alpha1.AppList
			if err := r.client.List(ctx, &apps, client.MatchingFields{indexHost: host}); err != nil {
				r.log.Warn("cannot wake apps that wait for a host name", "host", host, "error", err)
				continue
			}
			for i := range apps.Items {
				q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&apps.Items[i])})
			}
		}
	}}
}
