package gateway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/control"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/proxy"
	"github.com/emerald-platform/emerald/battery"
)

// collectorPercent lets the heap grow to more than what lives in it before
// garbage is collected: a request leaves a few hundred bytes, and collecting
// them at once would cost more time than it saves memory.
const collectorPercent = 200

// run serves until ctx ends and then until its clients have gone elsewhere; see
// [battery.Battery].
func run(ctx context.Context, s battery.Site) error {
	c := s.Config.(Config)
	if err := check(c); err != nil {
		return err
	}
	debug.SetGCPercent(collectorPercent)
	metrics := proxy.NewMetrics()
	if err := prometheus.Register(metrics); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	defer prometheus.Unregister(metrics)
	identity := os.Getenv("POD_NAME")
	if identity == "" {
		return errors.New("POD_NAME is not set: it tells replicas apart")
	}
	server := proxy.New(options(s, c, metrics))
	controller, err := control.New(control.Options{
		Kube: s.Kube, Log: s.Log, Settings: settings(s), Data: server, Identity: identity,
		ServiceType: c.ServiceType, Selector: battery.Selector("gateway"),
		Ready: s.Ready,
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Run(ctx) })
	// When the process is told to go, the data plane serves on with what it
	// knows while another replica takes over the writing.
	g.Go(func() error { return controller.Run(ctx) })
	return g.Wait()
}
