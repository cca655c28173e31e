package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// port is one port being listened on.
type port struct {
	server   *Server
	number   uint16
	listener net.Listener
	routes   atomic.Pointer[portRoutes]
	tls      *tls.Config

	mu      sync.Mutex
	clients map[*client]struct{}
	closing atomic.Bool
	empty   chan struct{} // closed when closing and no client is left
}

// switchPorts makes the listened ports those of routes. The caller holds s.mu.
func (s *Server) switchPorts(routes map[uint16]*portRoutes) error {
	var problems []error
	for number, r := range routes {
		if p := s.ports[number]; p != nil {
			p.routes.Store(r)
			continue
		}
		p, err := s.listen(number, r)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		s.ports[number] = p
		if s.group != nil {
			s.startPort(p)
		}
	}
	for number, p := range s.ports {
		if routes[number] == nil {
			delete(s.ports, number)
			s.retire(p)
		}
	}
	return errors.Join(problems...)
}

func (s *Server) listen(number uint16, r *portRoutes) (*port, error) {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", number))
	if err != nil {
		return nil, fmt.Errorf("listen for gateway %s: %w", r.gateway, err)
	}
	p := &port{server: s, number: number, listener: l, clients: map[*client]struct{}{}, empty: make(chan struct{})}
	p.routes.Store(r)
	p.tls = p.tlsConfig()
	return p, nil
}

// startPort begins to accept. The caller holds s.mu.
func (s *Server) startPort(p *port) {
	s.group.Go(func() error { p.accept(); return nil })
}

// retire closes a port that is no longer wanted, giving its clients time to
// get their responses.
func (s *Server) retire(p *port) {
	if s.group == nil {
		p.listener.Close()
		return
	}
	s.group.Go(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), s.opts.DrainTimeout)
		defer cancel()
		p.close(ctx)
		return nil
	})
}

// accept serves connections until the listener is closed.
func (p *port) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			p.server.opts.Metrics.acceptErrors.Inc()
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ENOBUFS) {
				// Accepting again at once would only burn the processor until
				// some connection ends.
				retry := time.NewTimer(20 * time.Millisecond)
				<-retry.C
			}
			continue
		}
		p.server.accepted.Store(time.Now().UnixNano())
		c := newClient(p, conn)
		if !p.add(c) {
			conn.Close()
			continue
		}
		p.server.group.Go(func() error { c.serve(); return nil })
	}
}

// add counts a client in, unless the port is closing.
func (p *port) add(c *client) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing.Load() {
		return false
	}
	p.clients[c] = struct{}{}
	p.server.opts.Metrics.connections.Inc()
	return true
}

// remove counts a client out.
func (p *port) remove(c *client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.clients, c)
	p.server.opts.Metrics.connections.Dec()
	if p.closing.Load() && len(p.clients) == 0 {
		close(p.empty)
	}
}

// close stops listening, closes idle clients, waits for the others until ctx
// ends, and then cuts them.
func (p *port) close(ctx context.Context) {
	p.listener.Close()
	p.mu.Lock()
	p.closing.Store(true)
	if len(p.clients) == 0 {
		close(p.empty)
	}
	for c := range p.clients {
		c.closeIfIdle()
	}
	p.mu.Unlock()
	select {
	case <-p.empty:
		return
	case <-ctx.Done():
	}
	p.mu.Lock()
	for c := range p.clients {
		c.cut()
	}
	p.mu.Unlock()
	<-p.empty
}

// leaving tells whether clients are to be sent elsewhere.
func (p *port) leaving() bool { return p.closing.Load() || p.server.draining.Load() }

// watchClients looks once a second for clients that hung up while they wait
// for a backend, and abandons their requests. Nothing is read from such a
// connection meanwhile, so nothing else would notice.
func (s *Server) watchClients(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			s.mu.Lock()
			ports := make([]*port, 0, len(s.ports))
			for _, p := range s.ports {
				ports = append(ports, p)
			}
			s.mu.Unlock()
			for _, p := range ports {
				p.abandonGone(now)
			}
		}
	}
}

func (p *port) abandonGone(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.clients {
		if since := c.waiter.since.Load(); since == 0 || now.UnixNano()-since < int64(time.Second) {
			continue
		}
		if hungUp(c.tcp) {
			c.waiter.abandon()
		}
	}
}
