package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"

	"github.com/emerald-platform/emerald/batteries/registry/internal/api"
	"github.com/emerald-platform/emerald/batteries/registry/internal/store"
	"github.com/emerald-platform/emerald/batteries/registry/internal/upstream"
	"github.com/emerald-platform/emerald/battery"
)

// firstCollection is how long after a start garbage is first removed: the
// machine has better things to do at once.
const firstCollection = 10 * time.Minute

// drain is how long transfers may go on when the process is asked to end.
const drain = 50 * time.Second

func run(ctx context.Context, site battery.Site) error {
	cfg, err := site.Config.(Config).read()
	if err != nil {
		return err
	}
	// The storage library logs by itself, mostly what is nobody's concern.
	logrus.SetLevel(logrus.ErrorLevel)

	content, err := store.Open(ctx, store.Options{Root: dataDir, Quota: cfg.quotaOf, Log: site.Log})
	if err != nil {
		return err
	}
	defer content.Close()
	outside, err := newSurroundings(site.Kube, site.Log)
	if err != nil {
		return err
	}
	var handler *api.Handler
	copies := upstream.New(upstream.Options{
		Hosts: cfg.hosts, Transport: outside.roundTripper, TTL: cfg.tagTTL, MaxBlob: cfg.maxBlob, Log: site.Log,
		Count: func(host string, o upstream.Outcome) { handler.Counted(host, o) },
	})
	who, err := newAccess(site.Kube, site.Domain, copies.Copies)
	if err != nil {
		return err
	}
	keep := store.Retention{Grace: cfg.grace, Uploads: cfg.grace, Untagged: cfg.untagged}
	collect := func(ctx context.Context) (store.Collected, error) {
		begun := time.Now()
		done, err := content.Collect(ctx, keep)
		site.Log.Info("garbage collected", "images", done.Images, "blobs", done.Blobs, "uploads", done.Uploads,
			"bytes", done.Bytes, "took", time.Since(begun).Round(time.Millisecond))
		return done, err
	}
	handler = api.New(api.Options{
		Store: content, Authenticate: who.authenticate, Authorize: who.authorize, Upstream: copies, Collect: collect,
		Realm: Audience(site.Domain), MaxBlob: cfg.maxBlob, Reserve: cfg.reserve, Log: site.Log, Metrics: prometheus.DefaultRegisterer,
	})

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serve(ctx, site, handler.Server()) })
	g.Go(func() error {
		next := time.NewTimer(firstCollection)
		defer next.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-next.C:
			}
			if _, err := collect(ctx); err != nil && ctx.Err() == nil {
				site.Log.Error("collect garbage", "err", err)
			}
			next.Reset(cfg.every)
		}
	})
	return g.Wait()
}

// serve answers until ctx ends, with the certificate that is in the Secret at
// the time of each handshake.
func serve(ctx context.Context, site battery.Site, srv *http.Server) error {
	certificate, err := certwatcher.New(filepath.Join(tlsDir, "tls.crt"), filepath.Join(tlsDir, "tls.key"))
	if err != nil {
		return fmt.Errorf("load the registry's certificate: %w", err)
	}
	srv.TLSConfig = &tls.Config{GetCertificate: certificate.GetCertificate, MinVersion: tls.VersionTLS12}
	// Layers go over HTTP/1.1 at 1.6 times the speed, and clients that pull
	// several open a connection for each.
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+strconv.Itoa(serverPort))
	if err != nil {
		return fmt.Errorf("listen for registry clients: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return certificate.Start(ctx) })
	g.Go(func() error {
		site.Ready()
		if err := srv.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve registry clients: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
		return nil
	})
	return g.Wait()
}
