package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
)

// Backend is one port of a Service, spoken to in one way. It is safe for
// concurrent use.
type Backend struct {
	ID  model.BackendID
	reg *Registry
	tls *tls.Config // nil for plain text

	endpoints atomic.Pointer[[]*Endpoint]
	turn      atomic.Uint32

	client func() *http.Transport
}

func newBackend(r *Registry, id model.BackendID, spec model.BackendSpec) *Backend {
	b := &Backend{ID: id, reg: r}
	b.endpoints.Store(&[]*Endpoint{})
	alpn := "http/1.1"
	if id.Protocol == model.HTTP2 {
		alpn = "h2"
	}
	if spec.TLS != nil {
		b.tls = clientTLS(spec.TLS, alpn)
	}
	b.client = sync.OnceValue(func() *http.Transport { return r.newTransport(b) })
	return b
}

// Client returns net/http's client of the backend, for HTTP/2 and for copies
// of requests. The URL of a request names the endpoint, and its scheme is
// https where Secure.
func (b *Backend) Client() *http.Transport { return b.client() }

// Secure tells whether the backend is spoken to over TLS.
func (b *Backend) Secure() bool { return b.tls != nil }

// clientTLS returns the configuration for connections to a backend
// (BackendTLSPolicy, GEP-1897).
func clientTLS(spec *model.BackendTLS, alpn string) *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: spec.ServerName,
		RootCAs:    spec.Roots,
		NextProtos: []string{alpn},
	}
	if len(spec.SANs) == 0 {
		return c
	}
	// With names of its own the policy does not want ServerName verified: the
	// chain is verified here, and then that one of the names is carried.
	roots, names := spec.Roots, spec.SANs
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(s tls.ConnectionState) error {
		leaf := s.PeerCertificates[0]
		opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, cert := range s.PeerCertificates[1:] {
			opts.Intermediates.AddCert(cert)
		}
		if _, err := leaf.Verify(opts); err != nil {
			return err
		}
		if !carriesName(leaf, names) {
			return fmt.Errorf("certificate carries none of the names %s", strings.Join(names, ", "))
		}
		return nil
	}
	return c
}

func carriesName(leaf *x509.Certificate, names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		if strings.Contains(name, "://") {
			return slices.ContainsFunc(leaf.URIs, func(u *url.URL) bool { return u.String() == name })
		}
		if strings.HasPrefix(name, "*.") {
			return slices.ContainsFunc(leaf.DNSNames, func(n string) bool { return strings.EqualFold(n, name) })
		}
		return leaf.VerifyHostname(name) == nil
	})
}

// setEndpoints replaces the addresses, keeping endpoints that stay. The caller
// holds the registry's lock.
func (b *Backend) setEndpoints(addresses []string) {
	old := *b.endpoints.Load()
	next := make([]*Endpoint, 0, len(addresses))
	for _, a := range addresses {
		i := slices.IndexFunc(old, func(e *Endpoint) bool { return e.Address == a })
		if i >= 0 {
			next = append(next, old[i])
		} else {
			next = append(next, &Endpoint{Address: a, backend: b})
		}
	}
	b.endpoints.Store(&next)
	for _, e := range old {
		if !slices.Contains(next, e) {
			e.close()
		}
	}
	if len(old) > 0 {
		// Connections to vanished endpoints are of no use; those in use stay.
		b.client().CloseIdleConnections()
	}
}

func (b *Backend) close() {
	for _, e := range *b.endpoints.Load() {
		e.close()
	}
	b.client().CloseIdleConnections()
}

// Pick chooses the endpoint for a request, or returns nil when there is none.
// Endpoints in tried are chosen only when there is no other. The caller calls
// Done on the endpoint when its attempt has ended.
func (b *Backend) Pick(now time.Time, tried []*Endpoint) *Endpoint {
	all := *b.endpoints.Load()
	var best *Endpoint
	switch n := len(all); {
	case n == 0:
		return nil
	case n == 1:
		best = all[0]
	case n <= 8:
		// The least busy, taking turns among equals.
		start := int(b.turn.Add(1) % uint32(n))
		for i := range n {
			e := all[(start+i)%n]
			if best == nil || e.better(best, now, tried) {
				best = e
			}
		}
	default:
		// Two random choices are nearly as even as the least of all.
		for range 2 + len(tried) {
			e := all[rand.IntN(n)]
			if best == nil || e.better(best, now, tried) {
				best = e
			}
		}
	}
	best.inFlight.Add(1)
	return best
}

// Endpoint is one address of a backend.
type Endpoint struct {
	// Address is "ip:port".
	Address string
	backend *Backend

	inFlight atomic.Int32
	failures atomic.Int32
	// shunned is the Unix time in nanoseconds until which the endpoint is
	// chosen only when there is no other.
	shunned atomic.Int64

	mu     sync.Mutex
	idle   []*Conn // the last used is last
	closed bool
}

// better tells whether e is to be preferred to other.
func (e *Endpoint) better(other *Endpoint, now time.Time, tried []*Endpoint) bool {
	if a, b := slices.Contains(tried, e), slices.Contains(tried, other); a != b {
		return b
	}
	if a, b := e.shunned.Load() > now.UnixNano(), other.shunned.Load() > now.UnixNano(); a != b {
		return b
	}
	return e.inFlight.Load() < other.inFlight.Load()
}

// Done ends an attempt that Pick began.
func (e *Endpoint) Done() { e.inFlight.Add(-1) }

// Failed notes that the endpoint could not be connected to, or broke off
// before answering. It is passed over for one second, and twice as long after
// each further failure, at most 16 seconds.
func (e *Endpoint) Failed(now time.Time) {
	n := min(e.failures.Add(1), 5)
	e.shunned.Store(now.Add(time.Second << (n - 1)).UnixNano())
}

// Worked notes that the endpoint answered.
func (e *Endpoint) Worked() {
	if e.failures.Load() != 0 {
		e.failures.Store(0)
		e.shunned.Store(0)
	}
}

func (e *Endpoint) close() {
	e.mu.Lock()
	idle := e.idle
	e.idle, e.closed = nil, true
	e.mu.Unlock()
	for _, c := range idle {
		c.Close()
	}
}

// expire closes connections that were idle for too long.
func (e *Endpoint) expire(now time.Time) {
	e.mu.Lock()
	n := 0
	for n < len(e.idle) && !now.Before(e.idle[n].expires) {
		n++
	}
	old := slices.Clone(e.idle[:n])
	e.idle = slices.Delete(e.idle, 0, n)
	e.mu.Unlock()
	for _, c := range old {
		c.Close()
	}
}
