package certs

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/cert-manager/cert-manager/pkg/metrics"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
)

// measures passes on what cert-manager measures, above all when each certificate
// expires. cert-manager keeps it to a registry and a server of its own; here it
// joins the metrics of the process.
type measures struct {
	source atomic.Pointer[http.Handler] // nil while nothing runs
}

// newMeasures registers the measures with the process.
func newMeasures() (*measures, error) {
	m := &measures{}
	if err := ctrlmetrics.Registry.Register(m); err != nil {
		return nil, fmt.Errorf("register cert-manager's metrics: %w", err)
	}
	return m, nil
}

// follow passes on the metrics of these controllers from now on, nil for none.
func (m *measures) follow(c *controllers) {
	if c == nil {
		m.source.Store(nil)
		return
	}
	c.base.Metrics.SetupACMECollector(c.base.SharedInformerFactory.Acme().V1().Challenges().Lister())
	c.base.Metrics.SetupCertificateCollector(c.base.SharedInformerFactory.Certmanager().V1().Certificates().Lister())
	c.base.Metrics.SetupIssuerCollector(c.base.SharedInformerFactory.Certmanager().V1().Issuers().Lister())
	c.base.Metrics.SetupClusterIssuerCollector(c.base.SharedInformerFactory.Certmanager().V1().ClusterIssuers().Lister())
	m.source.Store(handlerOf(c.base.Metrics))
}

// handlerOf returns what cert-manager's own server would answer with. That server
// is never started.
func handlerOf(own *metrics.Metrics) *http.Handler {
	return &own.NewServer(nowhere{}).Handler
}

// nowhere is a listener that only has an address.
type nowhere struct{ net.Listener }

// Addr returns an address that nobody listens at.
func (nowhere) Addr() net.Addr { return &net.TCPAddr{} }

// Describe says nothing: which metrics there are depends on the cluster.
func (m *measures) Describe(chan<- *prometheus.Desc) {}

// Collect reads the metrics and sends them on, without those about the process
// itself, which it has already.
func (m *measures) Collect(out chan<- prometheus.Metric) {
	source := m.source.Load()
	if source == nil {
		return
	}
	var page page
	(*source).ServeHTTP(&page, &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/metrics"}, Header: http.Header{}})
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(&page.body)
	if err != nil {
		out <- prometheus.NewInvalidMetric(prometheus.NewDesc("certmanager", "cert-manager's metrics", nil, nil), err)
		return
	}
	for name, family := range families {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		for _, one := range family.Metric {
			var labels []string
			for _, l := range one.Label {
				labels = append(labels, l.GetName())
			}
			out <- measure{prometheus.NewDesc(name, family.GetHelp(), labels, nil), one}
		}
	}
}

// measure is one metric as it was read.
type measure struct {
	desc *prometheus.Desc
	read *dto.Metric
}

// Desc returns what the metric is called.
func (m measure) Desc() *prometheus.Desc { return m.desc }

// Write copies the metric.
func (m measure) Write(out *dto.Metric) error {
	out.Label, out.Gauge, out.Counter, out.Summary = m.read.Label, m.read.Gauge, m.read.Counter, m.read.Summary
	out.Untyped, out.Histogram, out.TimestampMs = m.read.Untyped, m.read.Histogram, m.read.TimestampMs
	return nil
}

// page is an answer kept in memory.
type page struct {
	header http.Header
	body   bytes.Buffer
}

// Header returns the headers, which nobody reads.
func (p *page) Header() http.Header {
	if p.header == nil {
		p.header = http.Header{}
	}
	return p.header
}

// Write appends to the body.
func (p *page) Write(b []byte) (int, error) { return p.body.Write(b) }

// WriteHeader does nothing: an error shows in what cannot be parsed.
func (p *page) WriteHeader(int) {}
