package certs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/discovery"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kubeconfig"
)

// run issues and renews certificates until ctx ends; see [battery.Battery].
func run(ctx context.Context, s battery.Site) error {
	// cert-manager takes the way to the API, and whom to act as, from a file.
	dir, err := os.MkdirTemp("", "certs-")
	if err != nil {
		return fmt.Errorf("make a directory for the kubeconfig: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "kubeconfig")
	if err := kubeconfig.Write(file, s.Kube); err != nil {
		return err
	}
	p, err := newPublisher(s)
	if err != nil {
		return err
	}
	m, err := newMeasures()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.run(ctx) })
	g.Go(func() error { return runInjector(ctx, s) })
	g.Go(func() error { return runIssuers(ctx, s, file, m) })
	return g.Wait()
}

// lookForGateways is how often a cluster without the Gateway API is asked
// whether it has it by now.
const lookForGateways = 5 * time.Second

// runIssuers runs cert-manager, and starts it anew when the Gateway API appears:
// its controllers cannot wait for that.
func runIssuers(ctx context.Context, s battery.Site, kubeconfig string, m *measures) error {
	client, err := discovery.NewDiscoveryClientForConfig(s.Kube)
	if err != nil {
		return fmt.Errorf("reach the API: %w", err)
	}
	have, err := servesGateways(client)
	if err != nil {
		return err
	}
	if !have {
		s.Log.Info("the cluster has no Gateway API yet: certificates for Gateways wait for it")
		err := until(ctx, func(ctx context.Context) error {
			return runControllers(ctx, s, kubeconfig, false, m)
		}, func(ctx context.Context) error {
			return waitForGateways(ctx, client)
		})
		if err != nil || ctx.Err() != nil {
			return err
		}
	}
	return runControllers(ctx, s, kubeconfig, true, m)
}

// runControllers runs cert-manager's controllers and passes on what they
// measure until ctx ends.
func runControllers(ctx context.Context, s battery.Site, kubeconfig string, withGatewayAPI bool, m *measures) error {
	c, err := newControllers(ctx, s, kubeconfig, withGatewayAPI)
	if err != nil {
		return err
	}
	m.follow(c)
	defer m.follow(nil)
	return c.run(ctx)
}

// until runs work until event returns, or ctx ends, or one of them fails. Both
// have ended when it returns.
func until(ctx context.Context, work, event func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return work(ctx) })
	g.Go(func() error { defer stop(); return event(ctx) })
	return g.Wait()
}

// waitForGateways returns when the cluster serves the Gateway API or ctx ends.
func waitForGateways(ctx context.Context, client discovery.DiscoveryInterface) error {
	tick := time.NewTicker(lookForGateways)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			// A failed look is followed by another.
			if have, err := servesGateways(client); err == nil && have {
				return nil
			}
		}
	}
}

// servesGateways tells whether the cluster has Gateways and ListenerSets.
func servesGateways(client discovery.DiscoveryInterface) (bool, error) {
	list, err := client.ServerResourcesForGroupVersion(gatewayv1.GroupVersion.String())
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the Gateway API: %w", err)
	}
	missing := map[string]bool{"Gateway": true, "HTTPRoute": true, "ListenerSet": true}
	for _, r := range list.APIResources {
		delete(missing, r.Kind)
	}
	return len(missing) == 0, nil
}
