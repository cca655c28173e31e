package api

import (
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/emerald-platform/emerald/batteries/registry/internal/store"
)

// metrics counts what the registry does.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	received prometheus.Counter
	sent     prometheus.Counter
	upstream *prometheus.CounterVec
}

func newMetrics(to prometheus.Registerer, s *store.Store) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "registry_requests_total",
			Help: "Requests by what they are about, method and status.",
		}, []string{"about", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "registry_request_seconds",
			Help:    "How long requests took, transfers included.",
			Buckets: []float64{.005, .05, .5, 5, 50, 500},
		}, []string{"about", "method"}),
		received: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "registry_received_bytes_total", Help: "Bytes of blobs and manifests that were pushed.",
		}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "registry_sent_bytes_total", Help: "Bytes of answers.",
		}),
		upstream: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "registry_upstream_requests_total",
			Help: "Requests for images of other registries: hit, same, miss, stale or error.",
		}, []string{"upstream", "outcome"}),
	}
	if to != nil {
		to.MustRegister(m.requests, m.seconds, m.received, m.sent, m.upstream, holdings{s})
	}
	return m
}

// holdings reports what the namespaces hold, when asked.
type holdings struct{ s *store.Store }

var heldDesc = prometheus.NewDesc("registry_held_bytes", "Bytes of content that a namespace holds.", []string{"namespace"}, nil)

// Describe implements prometheus.Collector.
func (h holdings) Describe(to chan<- *prometheus.Desc) { to <- heldDesc }

// Collect implements prometheus.Collector.
func (h holdings) Collect(to chan<- prometheus.Metric) {
	for ns, bytes := range h.s.Held() {
		to <- prometheus.MustNewConstMetric(heldDesc, prometheus.GaugeValue, float64(bytes), ns)
	}
}

// record counts and logs a request that is over.
func (h *Handler) record(r *request, took time.Duration, broken bool) {
	method, about, status := knownMethod(r.Method), r.route.kind.String(), strconv.Itoa(r.w.status)
	if broken {
		status = "broken"
	}
	h.metrics.requests.WithLabelValues(about, method, status).Inc()
	h.metrics.seconds.WithLabelValues(about, method).Observe(took.Seconds())
	h.metrics.received.Add(float64(r.w.received))
	h.metrics.sent.Add(float64(r.w.bytes))
	level := slog.LevelInfo
	if r.w.status == http.StatusUnauthorized {
		level = slog.LevelDebug // how every conversation begins
	}
	h.opts.Log.Log(r.Context(), level, "request", "method", method, "path", r.URL.Path, "status", status,
		"caller", r.caller.Name, "received", r.w.received, "sent", r.w.bytes, "took", took.Round(time.Millisecond), "from", r.RemoteAddr)
}

// knownMethod keeps clients from making labels up.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return m
	}
	return "other"
}
