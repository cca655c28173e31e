package proxy

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what the data plane does. Counting costs a request a few
// atomic additions: labels are resolved when a configuration is applied.
//
// It is a prometheus.Collector; its metrics are named gateway_*.
type Metrics struct {
	connections, tunnels                          prometheus.Gauge
	acceptErrors, handshakeErrors, mirrorsDropped prometheus.Counter
	generation                                    prometheus.Gauge

	mu        sync.Mutex
	stats     map[statsKey]*routeStats
	latencies map[string]*latency
	round     uint64 // of sweep
}

type statsKey struct{ gateway, route, backend string }

// NewMetrics returns metrics at zero, registered nowhere.
func NewMetrics() *Metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "gateway", Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "gateway", Name: name, Help: help})
	}
	return &Metrics{
		connections:     gauge("connections", "Open connections of clients."),
		tunnels:         gauge("tunnels", "Connections that became tunnels, such as WebSockets."),
		generation:      gauge("config_generation", "Number of configurations applied since the start."),
		acceptErrors:    counter("accept_errors_total", "Connections that could not be accepted."),
		handshakeErrors: counter("tls_handshake_errors_total", "TLS handshakes of clients that failed."),
		mirrorsDropped:  counter("mirrors_dropped_total", "Copies of requests that were not sent: too large, or too many at once."),
		stats:           map[statsKey]*routeStats{},
		latencies:       map[string]*latency{},
	}
}

var (
	requestsDesc = prometheus.NewDesc("gateway_requests_total",
		"Requests by gateway, route (kind/namespace/name), backend (namespace/service) and status code.",
		[]string{"gateway", "route", "backend", "code"}, nil)
	latencyDesc = prometheus.NewDesc("gateway_request_seconds",
		"Time from the end of a request's head to the end of its response.", []string{"gateway"}, nil)
)

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- requestsDesc
	ch <- latencyDesc
	for _, c := range m.single() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.single() {
		c.Collect(ch)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, s := range m.stats {
		for i := range s.codes {
			code, n := s.codes[i].code.Load(), s.codes[i].count.Load()
			if n > 0 {
				ch <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(n), key.gateway, key.route, key.backend, strconv.Itoa(int(code)))
			}
		}
	}
	for gateway, l := range m.latencies {
		ch <- l.metric(gateway)
	}
}

func (m *Metrics) single() []prometheus.Collector {
	return []prometheus.Collector{m.connections, m.tunnels, m.generation, m.acceptErrors, m.handshakeErrors, m.mirrorsDropped}
}

func (m *Metrics) setGeneration(n uint64) { m.generation.Set(float64(n)) }

// statsOf returns the counters of a route's backend, which outlive
// configurations.
func (m *Metrics) statsOf(gateway, route, backend string) *routeStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := statsKey{gateway, route, backend}
	s := m.stats[key]
	if s == nil {
		s = &routeStats{}
		m.stats[key] = s
	}
	s.round = m.round
	return s
}

// sweep drops the counters that the configuration being applied has not asked
// for: routes come and go, and would leave theirs behind for ever. Begin the
// next configuration after it.
func (m *Metrics) sweep() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, s := range m.stats {
		if s.round != m.round {
			delete(m.stats, key)
		}
	}
	for gateway, l := range m.latencies {
		if l.round != m.round {
			delete(m.latencies, gateway)
		}
	}
	m.round++
}

func (m *Metrics) latencyOf(gateway string) *latency {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.latencies[gateway]
	if l == nil {
		l = &latency{}
		m.latencies[gateway] = l
	}
	l.round = m.round
	return l
}

// routeStats counts responses by status code. A route sees few different
// codes; should there be more than fit, the last place takes the rest.
type routeStats struct {
	round uint64 // under Metrics.mu
	codes [8]struct {
		code  atomic.Uint32
		count atomic.Uint64
	}
}

func (s *routeStats) count(status int) {
	for i := range s.codes {
		c := &s.codes[i]
		code := c.code.Load()
		if code == 0 && c.code.CompareAndSwap(0, uint32(status)) {
			code = uint32(status)
		}
		if code == 0 {
			code = c.code.Load() // another goroutine was first
		}
		if code == uint32(status) || i == len(s.codes)-1 {
			c.count.Add(1)
			return
		}
	}
}

// bounds are the upper bounds of the latency histogram's buckets.
var bounds = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
	25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

// latency is a histogram of durations.
type latency struct {
	round   uint64 // under Metrics.mu
	buckets [len(bounds) + 1]atomic.Uint64
	sum     atomic.Int64 // nanoseconds
}

func (l *latency) observe(d time.Duration) {
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	l.buckets[i].Add(1)
	l.sum.Add(int64(d))
}

func (l *latency) metric(gateway string) prometheus.Metric {
	var total uint64
	buckets := make(map[float64]uint64, len(bounds))
	for i, b := range bounds {
		total += l.buckets[i].Load()
		buckets[b.Seconds()] = total
	}
	total += l.buckets[len(bounds)].Load()
	return prometheus.MustNewConstHistogram(latencyDesc, total, time.Duration(l.sum.Load()).Seconds(), buckets, gateway)
}
