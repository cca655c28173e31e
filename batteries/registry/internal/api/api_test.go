package api_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/emerald-platform/emerald/batteries/registry/internal/api"
	"github.com/emerald-platform/emerald/batteries/registry/internal/store"
	"github.com/emerald-platform/emerald/batteries/registry/internal/upstream"
)

// registry is a running registry for tests, on loopback.
type registry struct {
	*httptest.Server
	Store   *store.Store
	Handler *api.Handler
}

// options changes what serve makes.
type options struct {
	dir       string
	authorize func(context.Context, api.Caller, api.Action, string) (bool, error)
	upstream  *upstream.Options
	quota     func(string) int64
	maxBlob   int64
	reserve   int64
}

// serve runs a registry until the test ends. Callers are who their Basic user
// name says and may do everything, unless changed.
func serve(tb testing.TB, change ...func(*options)) *registry {
	tb.Helper()
	o := options{
		dir: tb.TempDir(), maxBlob: 1 << 30,
		authorize: func(context.Context, api.Caller, api.Action, string) (bool, error) { return true, nil },
	}
	for _, c := range change {
		c(&o)
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	s, err := store.Open(context.Background(), store.Options{Root: o.dir, Quota: o.quota, Log: quiet})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	opts := api.Options{
		Store: s, Authorize: o.authorize, Realm: "test", MaxBlob: o.maxBlob, Reserve: o.reserve, Log: quiet,
		Authenticate: func(r *http.Request) (api.Caller, error) {
			user, _, ok := r.BasicAuth()
			if !ok {
				return api.Caller{}, api.ErrUnauthenticated
			}
			return api.Caller{Name: user}, nil
		},
		Collect: func(ctx context.Context) (store.Collected, error) { return s.Collect(ctx, store.Retention{}) },
	}
	if o.upstream != nil {
		o.upstream.Log = quiet
		opts.Upstream = upstream.New(*o.upstream)
	}
	h := api.New(opts)
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = h.Server()
	srv.Start()
	tb.Cleanup(srv.Close)
	return &registry{Server: srv, Store: s, Handler: h}
}
