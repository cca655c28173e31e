package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/emerald-platform/emerald/battery"
)

// health is what the health port says: alive always, ready from when every
// battery expected here has said so until the process ends.
//
// A process that was told to go stays ready while its batteries finish what is
// under way. The pod's EndpointSlices say that it is terminating, which keeps
// requests away as long as there is any other endpoint; where there is none,
// kube-proxy and the gateway send them to one that terminates and still serves
// (KEP-1669). Serving is what readiness says: taking it back would leave a
// battery with one copy without an endpoint until its successor is ready. A
// battery that knows better takes it back itself; see [battery.Site.Leave].
type health struct {
	mu      sync.Mutex
	waiting map[string]bool
	changed func(name string) // called without the lock; may be nil
}

func newHealth() *health { return &health{waiting: map[string]bool{}} }

// expect makes readiness wait for a battery, also for one that was ready.
func (h *health) expect(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting[name] = true
}

// ready records that a battery does its job.
func (h *health) ready(name string) {
	h.mu.Lock()
	fresh := h.waiting[name]
	delete(h.waiting, name)
	changed := h.changed
	h.mu.Unlock()
	if fresh && changed != nil {
		changed(name)
	}
}

// give makes the battery's word count here.
func (h *health) give(site *battery.Site, name string) {
	site.Ready = func() { h.ready(name) }
	site.Leave = func() { h.expect(name) }
}

// missing returns why the workload is not ready, "" when it is.
func (h *health) missing() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for n := range h.waiting {
		names = append(names, n)
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return "not ready yet: " + strings.Join(names, ", ")
}

// serve answers on the health port until ctx ends.
func (h *health) serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if missing := h.missing(); missing != "" {
			http.Error(w, missing, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	// Both registries describe the Go runtime; the first to do so is heard.
	all := prometheus.Gatherers{prometheus.DefaultGatherer, ctrlmetrics.Registry}
	mux.Handle("GET /metrics", promhttp.HandlerFor(all, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the health port: %w", err)
	}
	return nil
}
