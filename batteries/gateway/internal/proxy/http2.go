package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/routing"
)

// http2Server serves the connections of clients that speak HTTP/2, by means
// of net/http.
type http2Server struct {
	server *Server
	http   http.Server
	conns  *handover
}

func newHTTP2Server(s *Server) *http2Server {
	h := &http2Server{server: s, conns: &handover{conns: make(chan net.Conn), done: make(chan struct{})}}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	h.http = http.Server{
		Handler:           http.HandlerFunc(h.handle),
		Protocols:         &protocols,
		ReadHeaderTimeout: s.opts.HeadTimeout,
		IdleTimeout:       s.opts.IdleTimeout,
		MaxHeaderBytes:    s.opts.MaxHead,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          250,
			MaxReceiveBufferPerConnection: 1 << 20,
			MaxReceiveBufferPerStream:     256 << 10,
			SendPingTimeout:               30 * time.Second,
			PingTimeout:                   15 * time.Second,
			WriteByteTimeout:              s.opts.StallTimeout,
		},
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, clientKey{}, clientOf(conn))
		},
		// Errors of single connections are the clients' affair.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	return h
}

type clientKey struct{}

// handover is the listener that net/http accepts connections from: those that
// a client turned out to speak HTTP/2 on.
type handover struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *handover) Addr() net.Addr { return &net.TCPAddr{} }

// run serves until close.
func (h *http2Server) run() error {
	if err := h.http.Serve(h.conns); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// close tells clients to go, waits for their requests until ctx ends, and then
// cuts them.
func (h *http2Server) close(ctx context.Context) {
	if h.http.Shutdown(ctx) != nil {
		_ = h.http.Close() // it only reports what closing connections reports
	}
}

// serve serves a connection to its end. Ahead is what was read from it.
func (h *http2Server) serve(c *client, ahead []byte) {
	below := c.below
	serve := c.conn // net/http wants to see the *tls.Conn
	if !c.secure {
		below = newHTTP2Conn(c)
		below.ahead = ahead
		serve = below
	}
	select {
	case h.conns.conns <- serve:
		<-below.closed
	case <-h.conns.done:
	}
}

// http2Conn is a connection as net/http gets it, or as TLS has it below: with
// what was read ahead put back, and its end told.
type http2Conn struct {
	net.Conn
	client *client
	ahead  []byte
	once   sync.Once
	closed chan struct{}
}

func newHTTP2Conn(c *client) *http2Conn {
	return &http2Conn{Conn: c.tcp, client: c, closed: make(chan struct{})}
}

// clientOf returns the client whose connection net/http was given.
func clientOf(conn net.Conn) *client {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	below, ok := conn.(*http2Conn)
	if !ok {
		return nil
	}
	return below.client
}

func (c *http2Conn) Read(p []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		c.ahead = c.ahead[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

func (c *http2Conn) Close() error {
	defer c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// stream is an HTTP/2 request's side of an exchange.
type stream struct {
	w http.ResponseWriter
	r *http.Request
}

// streams recycles exchanges of HTTP/2, which have no connection of their own
// to live in.
var streams = sync.Pool{New: func() any { return new(exchange) }}

// handle serves one request.
func (h *http2Server) handle(w http.ResponseWriter, r *http.Request) {
	c, ok := r.Context().Value(clientKey{}).(*client)
	if !ok || c == nil {
		panic(http.ErrAbortHandler)
	}
	x := streams.Get().(*exchange)
	x.begin(c.port, time.Now())
	x.http1 = http1.Request{Fields: x.http1.Fields[:0], Minor: 1}
	x.proto = "HTTP/2.0"
	x.remote, x.peer, x.secure, x.sni = c.addr, c.remote.Addr(), c.secure, c.sni
	for name, values := range r.Header {
		kind := http1.KindOf(name)
		for _, v := range values {
			x.http1.Fields = append(x.http1.Fields, http1.Field{Name: name, Value: v, Kind: kind})
			if kind == http1.TE && v == "trailers" {
				x.http1.Trailers = true
			}
		}
	}
	path, query, _ := strings.Cut(r.RequestURI, "?")
	x.request = routing.Request{Path: path, Query: query, Method: r.Method, Fields: x.http1.Fields}
	x.authority, x.length = r.Host, r.ContentLength
	x.requestBody = &streamBody{body: r.Body, r: r, empty: r.ContentLength == 0, limit: h.server.opts.MaxBody}
	if limit := h.server.opts.MaxBody; limit >= 0 && x.length > limit {
		x.requestBody = &streamBody{err: http1.ErrBodyTooLarge}
	}
	x.reply, x.waiter = &stream{w, r}, new(waiter)
	stop := context.AfterFunc(r.Context(), x.waiter.abandon)
	if http1.ValidTarget(r.RequestURI, r.Host) {
		x.serve()
	} else {
		x.fail(400, "malformed request target")
		x.end()
	}
	stop()
	aborted := x.aborted
	// Nobody else holds the exchange now: the body's sender was waited for.
	*x = exchange{http1: x.http1, fields: x.fields, upstream: x.upstream, upstreamBody: x.upstreamBody}
	streams.Put(x)
	if aborted {
		panic(http.ErrAbortHandler)
	}
}

func (s *stream) inform(status int, fields []http1.Field) error {
	for i := range fields {
		s.w.Header().Add(fields[i].Name, fields[i].Value)
	}
	s.w.WriteHeader(status)
	clear(s.w.Header())
	return nil
}

// proceed does nothing: net/http sends 100 when the body is first read.
func (s *stream) proceed() error { return nil }

func (s *stream) stopBody() { s.r.Body.Close() }

func (s *stream) hijack() (net.Conn, []byte) { return nil, nil }

// respond sends a final response over HTTP/2.
func (s *stream) respond(x *exchange, r *response, source http1.Source) (readErr, writeErr error) {
	header := s.w.Header()
	for i := range r.fields {
		if f := &r.fields[i]; !f.Kind.HopByHop() {
			name := http.CanonicalHeaderKey(f.Name)
			header[name] = append(header[name], f.Value)
		}
	}
	switch {
	case r.length >= 0 && source != nil:
		header["Content-Length"] = []string{strconv.FormatInt(r.length, 10)}
	case r.declared >= 0 && (x.request.Method == "HEAD" || r.status == 304):
		header["Content-Length"] = []string{strconv.FormatInt(r.declared, 10)}
	}
	if x.closing && x.port.leaving() {
		header["Connection"] = []string{"close"} // net/http makes it GOAWAY
	}
	s.w.WriteHeader(r.status)
	if source == nil || x.request.Method == "HEAD" {
		return nil, nil
	}
	flush := s.w.(http.Flusher)
	buf := x.space()
	buf = buf[:cap(buf)]
	for {
		if !source.Ready() {
			flush.Flush() // nothing is held back while waiting for more
		}
		n, err := source.Read(buf)
		if n > 0 {
			if _, err := s.w.Write(buf[:n]); err != nil {
				return nil, err
			}
			x.sent += int64(n)
		}
		if err == io.EOF {
			for _, f := range source.Trailers() {
				header.Add(http.TrailerPrefix+f.Name, f.Value)
			}
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
	}
}

// streamBody is the body of an HTTP/2 request.
type streamBody struct {
	body  io.Reader
	r     *http.Request
	empty bool
	limit int64
	err   error
}

func (b *streamBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.body.Read(p)
	if b.limit >= 0 {
		if b.limit -= int64(n); b.limit < 0 {
			b.err = http1.ErrBodyTooLarge
			return 0, b.err
		}
	}
	return n, err
}

func (b *streamBody) Buffered() bool { return b.empty }
func (b *streamBody) Ready() bool    { return false }

func (b *streamBody) Trailers() []http1.Field {
	if b.r == nil {
		return nil
	}
	var out []http1.Field
	for name, values := range b.r.Trailer {
		for _, v := range values {
			out = append(out, http1.NewField(name, v))
		}
	}
	return out
}
