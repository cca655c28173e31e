// Package proxy is the data plane: it listens, finds the rule for each
// request, and forwards the request to a backend.
//
// It promises that applying a new configuration interrupts nothing: listeners
// that stay keep their sockets, requests in flight end under the rules they
// began with, and connections of a removed listener end after the response
// they are waiting for. A request that reached no backend, or that may be
// repeated, is tried on another endpoint before the client sees an error, so
// that backends may come and go.
//
// It refuses to trust what clients say about themselves (X-Forwarded-*,
// Forwarded) unless their address is listed, to forward what two parsers could
// read differently, and to keep waiting for those who stopped talking.
//
// HTTP/1.1 is spoken by package http1 on both sides; HTTP/2, with clients and
// with backends, by net/http. Both meet in the type exchange, which is one
// request and its response whatever carried them. A request passes these
// stages, in exchange.serve: rule, CORS, redirect, backend, forward. Policies
// that may refuse a request (rate limits, tokens, a firewall) have their place
// between CORS and redirect.
//
// Invariant: every request gets exactly one final response, or its connection
// is closed.
package proxy

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/upstream"
)

// Options are the limits and habits of a Server. All must be set; zero means
// "no limit" only where it says so.
type Options struct {
	Log *slog.Logger
	// AccessLog receives a record per request, or some of them; nil for none.
	AccessLog *AccessLog
	Metrics   *Metrics
	Upstream  upstream.Options

	// MaxHead is the most bytes of a request's or response's head.
	MaxHead int
	// MaxBody is the most bytes of a request's body; negative for no limit.
	MaxBody int64
	// HeadTimeout bounds receiving a request's head once it began, and a TLS
	// handshake.
	HeadTimeout time.Duration
	// IdleTimeout is how long a connection may wait for its next request.
	IdleTimeout time.Duration
	// StallTimeout is how long a client may neither send nor take a byte of a
	// body that is under way.
	StallTimeout time.Duration
	// BackendTimeout bounds the wait for a backend's response head, where the
	// rule says nothing.
	BackendTimeout time.Duration
	// Attempts is the most endpoints a request is tried on, at least 1.
	Attempts int
	// Trusted are the addresses of proxies whose X-Forwarded fields are
	// believed.
	Trusted []netip.Prefix
	// DrainDelay is how long after the end of its context a Server goes on
	// accepting connections: the time until nobody sends it new ones when
	// there is another to send them to. Where there is none they keep coming,
	// and it accepts until none came for DrainQuiet, but at most for DrainMax
	// in all. Zero for these ends accepting after the delay.
	DrainDelay, DrainQuiet, DrainMax time.Duration
	// DrainTimeout is how long requests in flight may take after that.
	DrainTimeout time.Duration
}

// Server is the data plane. Apply may be called from any goroutine.
type Server struct {
	opts     Options
	backends *upstream.Registry
	h2       *http2Server
	// draining is set when the process is to end: responses tell clients to
	// go elsewhere.
	draining  atomic.Bool
	accepted  atomic.Int64 // when the last connection came, in Unix nanoseconds
	mirroring atomic.Int32 // copies under way
	date      atomic.Pointer[dateLine]

	mu         sync.Mutex
	ports      map[uint16]*port
	generation uint64
	group      *errgroup.Group // nil before Run
	closed     bool
}

// New returns a Server that listens nowhere yet.
func New(opts Options) *Server {
	s := &Server{opts: opts, backends: upstream.NewRegistry(opts.Upstream), ports: map[uint16]*port{}}
	s.h2 = newHTTP2Server(s)
	return s
}

// SetEndpoints replaces the addresses of a Service's port; see
// [upstream.Registry.SetEndpoints].
func (s *Server) SetEndpoints(service upstream.Service, addresses []string) {
	s.backends.SetEndpoints(service, addresses)
}

// Run serves until ctx ends, and then drains: it accepts connections for a
// while, asking clients to leave, waits for requests in flight, and cuts those
// that take longer than DrainTimeout. It returns nil. It must be called once.
func (s *Server) Run(ctx context.Context) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	group, life := errgroup.WithContext(life)
	group.Go(func() error { return s.backends.Run(life) })
	group.Go(s.h2.run)
	group.Go(func() error { return s.watchClients(life) })
	if s.opts.AccessLog != nil {
		group.Go(func() error { return s.opts.AccessLog.run(life) })
	}
	s.mu.Lock()
	s.group = group
	for _, p := range s.ports {
		s.startPort(p)
	}
	s.mu.Unlock()

	group.Go(func() error {
		select {
		case <-ctx.Done():
		case <-life.Done():
		}
		s.drain()
		end()
		return nil
	})
	return group.Wait()
}

// drain ends all connections, politely first.
func (s *Server) drain() {
	s.draining.Store(true)
	s.opts.Log.Info("draining", "delay", s.opts.DrainDelay, "timeout", s.opts.DrainTimeout)
	s.awaitQuiet()

	s.mu.Lock()
	s.closed = true
	ports := s.ports
	s.ports = map[uint16]*port{}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), s.opts.DrainTimeout)
	defer cancel()
	var group errgroup.Group
	for _, p := range ports {
		group.Go(func() error { p.close(ctx); return nil })
	}
	group.Go(func() error { s.h2.close(ctx); return nil })
	_ = group.Wait() // the functions return no errors
}

// awaitQuiet returns when nobody sends new connections any more.
func (s *Server) awaitQuiet() {
	began, pause := time.Now(), s.opts.DrainDelay
	for {
		timer := time.NewTimer(pause)
		<-timer.C
		now := time.Now()
		pause = min(s.opts.DrainQuiet-now.Sub(time.Unix(0, s.accepted.Load())), s.opts.DrainMax-now.Sub(began))
		if pause <= 0 {
			return
		}
	}
}

// Apply makes a configuration the one in force. On an error nothing has
// changed, except that a port that cannot be listened on is left out while the
// rest is applied; it is tried again with the next configuration.
func (s *Server) Apply(c *model.Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	live := s.backends.Bind(c.Backends)
	compiler := newCompiler(live, s.opts.Metrics)
	routes := make(map[uint16]*portRoutes, len(c.Ports))
	for i := range c.Ports {
		r, err := compiler.port(&c.Ports[i])
		if err != nil {
			return err
		}
		routes[c.Ports[i].Target] = r
	}
	s.opts.Metrics.sweep()
	err := s.switchPorts(routes)
	s.backends.Keep(c.Backends)
	s.generation++
	s.opts.Metrics.setGeneration(s.generation)
	return err
}
