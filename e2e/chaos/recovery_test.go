//go:build e2e

package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// serving returns nil when every battery is ready and every app answers with
// something that was acknowledged, or is being deployed.
func (c *campaign) serving(ctx context.Context) error {
	if err := c.NodeReady(ctx); err != nil {
		return err
	}
	var platforms v1alpha1.PlatformList
	if err := c.api.List(ctx, &platforms); err != nil {
		return err
	}
	for _, p := range platforms.Items {
		for _, b := range p.Status.Batteries {
			if b.Phase != v1alpha1.PhaseReady && b.Phase != v1alpha1.PhaseOff {
				return fmt.Errorf("battery %s is %s: %s", b.Name, b.Phase, b.Message)
			}
		}
	}
	if err := c.deployments(ctx, func(d *appsv1.Deployment) error {
		if !strings.HasPrefix(d.Namespace, "emerald-") {
			return nil
		}
		return deploymentSettled(d)
	}); err != nil {
		return err
	}
	for _, a := range c.apps {
		text, mood, err := c.ask(ctx, a)
		if err != nil {
			return err
		}
		if !a.text[text] || !a.mood[mood] {
			return fmt.Errorf("app %s serves %q, %q: acknowledged or under way: %v, %v", a.name, text, mood, a.text, a.mood)
		}
	}
	return nil
}

// settled returns nil when nothing is under way any more.
func (c *campaign) settled(ctx context.Context) error {
	if err := c.deployments(ctx, deploymentSettled); err != nil {
		return err
	}
	for _, a := range c.apps {
		if err := c.appSettled(ctx, a); err != nil {
			return err
		}
	}
	var pods corev1.PodList
	if err := c.api.List(ctx, &pods); err != nil {
		return err
	}
	var errs []error
	for _, p := range pods.Items {
		if p.DeletionTimestamp != nil {
			continue // has its time; lookForStrays knows how much
		}
		ready := false
		for _, cond := range p.Status.Conditions {
			ready = ready || cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue
		}
		if !ready {
			errs = append(errs, fmt.Errorf("pod %s/%s is %s and not ready", p.Namespace, p.Name, p.Status.Phase))
		}
	}
	return errors.Join(errs...)
}

func (c *campaign) deployments(ctx context.Context, check func(*appsv1.Deployment) error) error {
	var all appsv1.DeploymentList
	if err := c.api.List(ctx, &all, &client.ListOptions{}); err != nil {
		return err
	}
	for i := range all.Items {
		if err := check(&all.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

func deploymentSettled(d *appsv1.Deployment) error {
	want := *d.Spec.Replicas
	s := d.Status
	if s.ObservedGeneration != d.Generation || s.UpdatedReplicas != want || s.Replicas != want || s.ReadyReplicas != want || s.AvailableReplicas != want {
		return fmt.Errorf("deployment %s/%s: %d copies wanted, %d there, %d updated, %d ready", d.Namespace, d.Name, want, s.Replicas, s.UpdatedReplicas, s.ReadyReplicas)
	}
	return nil
}

// silence is what the apps' visitors notice of a kill.
type silence struct {
	ends   time.Duration // after the kill
	failed int           // requests
	last   error
}

// listen asks every app without a break. The returned function ends that and
// says what stayed without an answer.
func (c *campaign) listen(since time.Time) func() silence {
	ctx, cancel := context.WithCancel(c.t.Context())
	var mu sync.Mutex
	var wg sync.WaitGroup
	var s silence
	for _, a := range c.apps {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, _, err := c.ask(ctx, a); err != nil && ctx.Err() == nil {
					mu.Lock()
					s = silence{ends: time.Since(since), failed: s.failed + 1, last: err}
					mu.Unlock()
				}
				sleep(ctx, 100*time.Millisecond)
			}
		})
	}
	return func() silence {
		cancel()
		wg.Wait()
		return s
	}
}
