package client

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// askEvery is how often a copy that does not become healthy is asked where it
// listens.
const askEvery = 4 * time.Second

// errPort ends a wait because the app turned out to listen elsewhere.
var errPort = errors.New("the app listens on another port")

// Rollout follows a deployment like [Client.Wait]. Where nobody chose the App's
// port and its copies turn out to listen on just one other, the App gets that
// port; noted is told.
func (c *Client) Rollout(ctx context.Context, d *Deployment, show func(*v1alpha1.App), noted func(port int32)) (*v1alpha1.App, error) {
	if d.App.Annotations[v1alpha1.AnnotationPort] != autoPort {
		return c.Wait(ctx, d.App, show)
	}
	waitCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	g, waitCtx := errgroup.WithContext(waitCtx)
	var now *v1alpha1.App
	port := int32(0)
	g.Go(func() error {
		var err error
		now, err = c.Wait(waitCtx, d.App, show)
		stop(err)
		return err
	})
	g.Go(func() error {
		port = c.findPort(waitCtx, d.App)
		if port != 0 {
			return errPort
		}
		return nil
	})
	err := g.Wait()
	if !errors.Is(err, errPort) {
		return now, err
	}
	noted(port)
	spec := *d.App.Spec.DeepCopy()
	spec.Port = port
	d.App, err = c.submit(ctx, d.App, submission{
		outcome: outcome{spec: spec, touched: []string{"port"}, autoPort: true},
		user:    d.App.Annotations[v1alpha1.AnnotationImageUser],
		cause:   d.App.Annotations[v1alpha1.AnnotationCause],
	})
	if err != nil {
		return nil, err
	}
	return c.Wait(ctx, d.App, show)
}

// findPort asks the App's newest copy now and then where it listens, and returns
// the one port when it is not the App's. It returns 0 when ctx ends, when the
// port is right, and when the image cannot tell.
func (c *Client) findPort(ctx context.Context, app *v1alpha1.App) int32 {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return 0
		case <-tick.C:
		}
		ports, err := c.Listening(ctx, app)
		switch {
		case err != nil || len(ports) == 0:
		case len(ports) == 1 && ports[0] != app.Spec.Port:
			return ports[0]
		case len(ports) > 1 || slices.Contains(ports, app.Spec.Port):
			return 0
		}
	}
}
