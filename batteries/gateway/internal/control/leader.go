package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/translate"
)

// Lease is the name of the Lease whose holder writes statuses and Services.
const Lease = "gateway"

// lead writes while this replica holds the Lease, until ctx ends. Losing the
// Lease ends nothing but the writing.
func (c *Controller) lead(ctx context.Context) error {
	clientset, err := kubernetes.NewForConfig(c.Kube)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: c.Settings.Namespace, Name: Lease},
		Client:     clientset.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: c.Identity},
	}
	for ctx.Err() == nil {
		term, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: c.write,
				OnStoppedLeading: func() {},
			},
		})
		if err != nil {
			return fmt.Errorf("make a leader election: %w", err)
		}
		term.Run(ctx)
	}
	return nil
}

// write brings Services and statuses up to date whenever a result is
// published, until ctx ends.
func (c *Controller) write(ctx context.Context) {
	c.Log.InfoContext(ctx, "writing statuses")
	poke(c.published)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.published:
		}
		result := c.result.Load()
		if result == nil {
			continue
		}
		err := errors.Join(c.writeServices(ctx, result.Services), c.writeStatuses(ctx, &result.Status))
		if err == nil || ctx.Err() != nil {
			continue
		}
		c.Log.WarnContext(ctx, "write statuses, will retry", "error", err)
		if !wait(ctx, time.Second) {
			return
		}
		poke(c.published)
	}
}

// writeServices makes the Services of the gateways what they should be.
func (c *Controller) writeServices(ctx context.Context, wishes []translate.ServiceWish) error {
	var existing corev1.ServiceList
	if err := c.cache.List(ctx, &existing, client.InNamespace(c.Settings.Namespace)); err != nil {
		return fmt.Errorf("list Services: %w", err)
	}
	wanted := map[string]bool{c.Settings.DefaultService: true}
	var problems []error
	for _, w := range wishes {
		wanted[w.Name] = true
		if err := c.writeService(ctx, w, find(existing.Items, w.Name)); err != nil {
			problems = append(problems, fmt.Errorf("write Service %q: %w", w.Name, err))
		}
	}
	for i := range existing.Items {
		s := &existing.Items[i]
		if _, ours := s.Annotations[translate.GatewayAnnotation]; !ours || wanted[s.Name] {
			continue
		}
		if err := c.client.Delete(ctx, s); client.IgnoreNotFound(err) != nil {
			problems = append(problems, fmt.Errorf("delete Service %q: %w", s.Name, err))
		}
	}
	return errors.Join(problems...)
}

func find(list []corev1.Service, name string) *corev1.Service {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

func (c *Controller) writeService(ctx context.Context, w translate.ServiceWish, cached *corev1.Service) error {
	if cached == nil {
		if w.Name == c.Settings.DefaultService {
			return nil // the installer's
		}
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: c.Settings.Namespace, Name: w.Name}}
		c.fillService(s, w)
		return c.client.Create(ctx, s)
	}
	if w.Name == c.Settings.DefaultService && samePorts(cached, w) {
		return nil
	}
	// The cache holds only part of it.
	live := &corev1.Service{}
	if err := c.client.Get(ctx, client.ObjectKeyFromObject(cached), live); err != nil {
		return client.IgnoreNotFound(err)
	}
	changed := live.DeepCopy()
	c.fillService(changed, w)
	if equality.Semantic.DeepEqual(live, changed) {
		return nil
	}
	err := c.client.Update(ctx, changed)
	if apierrors.IsConflict(err) {
		return nil // its change wakes us again
	}
	return err
}

func samePorts(s *corev1.Service, w translate.ServiceWish) bool {
	have := map[int32]uint16{}
	for _, p := range s.Spec.Ports {
		have[p.Port] = uint16(p.TargetPort.IntVal)
	}
	return maps.Equal(have, w.Ports)
}

// fillService sets what a gateway's Service must have.
func (c *Controller) fillService(s *corev1.Service, w translate.ServiceWish) {
	if w.Name != c.Settings.DefaultService {
		s.Spec.Type = c.ServiceType
		if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
			no := false
			s.Spec.AllocateLoadBalancerNodePorts = &no
		}
		s.Spec.Selector = c.Selector
		s.Annotations = merge(s.Annotations, map[string]string{translate.GatewayAnnotation: w.Gateway.String()})
		s.Labels = merge(s.Labels, map[string]string{
			"app.kubernetes.io/managed-by": "emerald-gateway", gatewayv1.GatewayNameLabelKey: label(w.Gateway.Name),
		})
	}
	if len(w.Labels) > 0 {
		s.Labels = merge(w.Labels, s.Labels)
	}
	if len(w.Annotations) > 0 {
		s.Annotations = merge(w.Annotations, s.Annotations)
	}
	s.Spec.Ports = slices.DeleteFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return w.Ports[p.Port] == 0 })
	for _, port := range slices.Sorted(maps.Keys(w.Ports)) {
		i := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == port })
		if i < 0 {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprintf("p%d", port), Protocol: corev1.ProtocolTCP, Port: port})
			i = len(s.Spec.Ports) - 1
		}
		s.Spec.Ports[i].TargetPort = intstr.FromInt32(int32(w.Ports[port]))
	}
}

// label cuts a name to what a label's value can hold.
func label(name string) string { return name[:min(len(name), 63)] }

func merge(base, over map[string]string) map[string]string {
	out := make(map[string]string, len(base)+len(over))
	maps.Copy(out, base)
	maps.Copy(out, over)
	return out
}

// writeStatuses writes the statuses that are not what they should be.
func (c *Controller) writeStatuses(ctx context.Context, s *translate.Statuses) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	t := now()
	for _, w := range s.Classes {
		group.Go(func() error {
			return writeStatus(ctx, c, w.Object, func(o *gatewayv1.GatewayClass) any {
				conditions := translate.MergeConditions(o.Status.Conditions, w.Status.Conditions, t)
				o.Status = w.Status
				o.Status.Conditions = conditions
				return &o.Status
			})
		})
	}
	for _, w := range s.Gateways {
		group.Go(func() error {
			return writeStatus(ctx, c, w.Object, func(o *gatewayv1.Gateway) any {
				status := *w.Status.DeepCopy()
				status.Conditions = translate.MergeConditions(o.Status.Conditions, status.Conditions, t)
				mergeListeners(o.Status.Listeners, status.Listeners, ofListener, t)
				o.Status = status
				return &o.Status
			})
		})
	}
	for _, w := range s.ListenerSets {
		group.Go(func() error {
			return writeStatus(ctx, c, w.Object, func(o *gatewayv1.ListenerSet) any {
				status := *w.Status.DeepCopy()
				status.Conditions = translate.MergeConditions(o.Status.Conditions, status.Conditions, t)
				mergeListeners(o.Status.Listeners, status.Listeners, ofSetListener, t)
				o.Status = status
				return &o.Status
			})
		})
	}
	for _, w := range s.HTTPRoutes {
		group.Go(func() error {
			return writeStatus(ctx, c, w.Object, func(o *gatewayv1.HTTPRoute) any {
				o.Status.Parents = mergeOurs(c.Settings.Controller, o.Status.Parents, w.Status, ofParent, t)
				return &o.Status
			})
		})
	}
	for _, w := range s.GRPCRoutes {
		group.Go(func() error {
			return writeStatus(ctx, c, w.Object, func(o *gatewayv1.GRPCRoute) any {
				o.Status.Parents = mergeOurs(c.Settings.Controller, o.Status.Parents, w.Status, ofParent, t)
				return &o.Status
			})
		})
	}
	for _, w := range s.Policies {
		group.Go(func() error {
			return writeStatus(ctx, c, w.Object, func(o *gatewayv1.BackendTLSPolicy) any {
				o.Status.Ancestors = mergeOurs(c.Settings.Controller, o.Status.Ancestors, w.Status, ofAncestor, t)
				return &o.Status
			})
		})
	}
	return group.Wait()
}

// writeStatus writes the status that set gives an object, unless it has it.
// Set is called on a copy. An object that changed since it was translated is
// left to the next result.
func writeStatus[O client.Object](ctx context.Context, c *Controller, translated O, set func(O) any) error {
	latest := translated.DeepCopyObject().(O)
	name := types.NamespacedName{Namespace: translated.GetNamespace(), Name: translated.GetName()}
	if err := c.cache.Get(ctx, name, latest); err != nil {
		return client.IgnoreNotFound(err)
	}
	if latest.GetGeneration() != translated.GetGeneration() || latest.GetUID() != translated.GetUID() {
		return nil
	}
	changed := latest.DeepCopyObject().(O)
	set(changed)
	if equality.Semantic.DeepEqual(latest, changed) {
		return nil
	}
	err := c.client.Status().Update(ctx, changed)
	if apierrors.IsConflict(err) {
		return nil // its change wakes us again
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write the status of %T %s: %w", translated, name, err)
	}
	return nil
}
