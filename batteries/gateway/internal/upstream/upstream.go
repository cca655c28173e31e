// Package upstream keeps what the proxy knows of backends: their ready
// endpoints, how busy each is, which recently refused a connection, and idle
// connections to reuse.
//
// It promises that a change of endpoints takes effect for the next request,
// that connections of vanished endpoints are closed as soon as they are idle,
// and that choosing an endpoint and taking an idle connection allocate nothing.
//
// It refuses active health checks: readiness is Kubernetes' to tell; an
// endpoint that refuses connections is only passed over for some seconds.
//
// Invariant: an Endpoint's count of requests in flight is the number of Pick
// calls that returned it without a matching Done.
package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
)

// Options are the limits of connections to backends.
type Options struct {
	// ConnectTimeout bounds connecting, TLS handshake included.
	ConnectTimeout time.Duration
	// IdleTimeout is how long an unused connection is kept.
	IdleTimeout time.Duration
	// MaxIdle is the most idle connections kept per endpoint.
	MaxIdle int
}

// Service names one port of a Service: what endpoints are known for.
type Service struct {
	Namespace, Name string
	Port            int32
}

// Registry holds the live backends. It is safe for concurrent use.
type Registry struct {
	opts   Options
	dialer net.Dialer

	mu        sync.Mutex
	backends  map[model.BackendID]*Backend
	addresses map[Service][]string
}

// NewRegistry returns an empty registry.
func NewRegistry(opts Options) *Registry {
	return &Registry{
		opts:      opts,
		dialer:    net.Dialer{Timeout: opts.ConnectTimeout, KeepAlive: 30 * time.Second},
		backends:  map[model.BackendID]*Backend{},
		addresses: map[Service][]string{},
	}
}

// Bind returns the live backends for a configuration, making those that are
// missing. Backends that exist keep their connections.
func (r *Registry) Bind(specs map[model.BackendID]model.BackendSpec) map[model.BackendID]*Backend {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[model.BackendID]*Backend, len(specs))
	for id, spec := range specs {
		b := r.backends[id]
		if b == nil {
			b = newBackend(r, id, spec)
			b.setEndpoints(r.addresses[serviceOf(id)])
			r.backends[id] = b
		}
		out[id] = b
	}
	return out
}

// Keep forgets the backends that are not in specs. Their requests in flight
// end undisturbed.
func (r *Registry) Keep(specs map[model.BackendID]model.BackendSpec) {
	r.mu.Lock()
	var gone []*Backend
	for id, b := range r.backends {
		if _, ok := specs[id]; !ok {
			delete(r.backends, id)
			gone = append(gone, b)
		}
	}
	r.mu.Unlock()
	for _, b := range gone {
		b.close()
	}
}

// SetEndpoints replaces the addresses ("ip:port") of a Service's port. None
// means that requests for it are answered with 503.
func (r *Registry) SetEndpoints(s Service, addresses []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(addresses) == 0 {
		delete(r.addresses, s)
	} else {
		r.addresses[s] = addresses
	}
	for id, b := range r.backends {
		if serviceOf(id) == s {
			b.setEndpoints(addresses)
		}
	}
}

func serviceOf(id model.BackendID) Service {
	return Service{Namespace: id.Namespace, Name: id.Service, Port: id.Port}
}

// Run closes connections that stayed idle too long, until ctx ends; then it
// closes all idle ones.
func (r *Registry) Run(ctx context.Context) error {
	tick := time.NewTicker(r.opts.IdleTimeout / 10)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			r.Keep(nil)
			return nil
		case now := <-tick.C:
			for _, e := range r.endpoints() {
				e.expire(now)
			}
		}
	}
}

func (r *Registry) endpoints() []*Endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*Endpoint
	for _, b := range r.backends {
		out = append(out, *b.endpoints.Load()...)
	}
	return out
}

// ErrNoEndpoint means that a backend has no ready endpoint: 503.
var ErrNoEndpoint = errors.New("no ready endpoint")

// dial connects to an address, with TLS where the backend wants it.
func (r *Registry) dial(ctx context.Context, b *Backend, address string) (net.Conn, error) {
	conn, err := r.dialer.DialContext(ctx, "tcp", address)
	if err != nil || b.tls == nil {
		return conn, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.opts.ConnectTimeout)
	defer cancel()
	secure := tls.Client(conn, b.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// newTransport returns net/http's client of a backend.
func (r *Registry) newTransport(b *Backend) *http.Transport {
	var protocols http.Protocols
	t := &http.Transport{
		Protocols:          &protocols,
		DisableCompression: true,
		IdleConnTimeout:    r.opts.IdleTimeout,
		HTTP2: &http.HTTP2Config{
			// A dead peer is noticed although nothing is written to it.
			SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second,
		},
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return r.dial(ctx, b, address)
		},
		DialTLSContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return r.dial(ctx, b, address)
		},
	}
	switch {
	case b.ID.Protocol != model.HTTP2:
		protocols.SetHTTP1(true)
	case b.tls == nil:
		protocols.SetUnencryptedHTTP2(true)
	default:
		protocols.SetHTTP2(true)
	}
	return t
}
