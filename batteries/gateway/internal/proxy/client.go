package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/routing"
)

// client is a connection from a client. It serves HTTP/1.1 itself and gives
// connections that speak HTTP/2 to net/http.
//
//	accepted → (TLS handshake) → idle ⇄ busy → closed
//	                           └→ HTTP/2 → closed
type client struct {
	port *port
	tcp  net.Conn // as accepted
	conn net.Conn // tcp, or TLS over it
	// below is what TLS reads from and writes to; nil without TLS.
	below *http2Conn
	in    http1.Reader
	// sni is the host name of the TLS handshake, normalised; "" without TLS.
	sni    string
	secure bool
	remote netip.AddrPort
	addr   string // the remote address without port

	state  atomic.Int32
	waiter waiter

	readBy, writeBy time.Time // the deadlines in force
	inHead          bool      // a head has begun but not ended
	x               exchange
}

// The states of a client.
const (
	stateNew int32 = iota
	stateIdle
	stateBusy
	stateClosed
)

// clientBuffer holds almost every request's head.
const clientBuffer = 4 << 10

// clientBuffers recycles the input buffers of connections.
var clientBuffers = sync.Pool{New: func() any { b := make([]byte, clientBuffer); return &b }}

func newClient(p *port, conn net.Conn) *client {
	c := &client{port: p, tcp: conn, conn: conn}
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		c.remote = a.AddrPort()
	}
	c.addr = c.remote.Addr().Unmap().String()
	return c
}

func (c *client) opts() *Options { return &c.port.server.opts }

// serve runs the connection to its end.
func (c *client) serve() {
	defer c.port.remove(c)
	defer c.conn.Close()
	if c.port.tls != nil {
		if !c.handshake() {
			return
		}
		if c.conn.(*tls.Conn).ConnectionState().NegotiatedProtocol == "h2" {
			c.port.server.h2.serve(c, nil)
			return
		}
	}
	c.in.Reset(readerFunc(c.read), *clientBuffers.Get().(*[]byte))
	defer c.releaseBuffer()
	for c.awaitRequest() {
		if !c.secure && c.state.Load() == stateBusy && isPreface(&c.in) {
			c.port.server.h2.serve(c, bytes.Clone(c.in.Peek()))
			return
		}
		if !c.serveRequest() {
			return
		}
	}
}

func (c *client) releaseBuffer() {
	if b := c.in.Buffer(); len(b) == clientBuffer {
		clientBuffers.Put(&b)
	}
	c.in.Reset(nil, nil)
}

// readerFunc makes a function an io.Reader.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// read reads from the connection under the deadline that fits what is read.
func (c *client) read(p []byte) (int, error) {
	now := time.Now()
	switch {
	case c.inHead:
		// Set once, when the head began: a head may not trickle in.
	case c.state.Load() == stateBusy:
		c.readWithin(now, c.opts().StallTimeout, false)
	default:
		c.readWithin(now, c.opts().IdleTimeout, false)
	}
	return c.conn.Read(p)
}

// write writes under the deadline for stalled clients.
func (c *client) write(p []byte) error {
	now := time.Now()
	if limit := c.opts().StallTimeout; c.writeBy.Sub(now) < limit {
		c.writeBy = now.Add(limit + slack(limit))
		if err := c.conn.SetWriteDeadline(c.writeBy); err != nil {
			return err
		}
	}
	_, err := c.conn.Write(p)
	return err
}

// slack is how much later than asked a deadline may come: setting one costs
// nearly as much as a system call, so it is done rarely.
func slack(d time.Duration) time.Duration { return min(d/8, 5*time.Second) }

func (c *client) readWithin(now time.Time, d time.Duration, exact bool) {
	if !exact {
		if left := c.readBy.Sub(now); left >= d && left < d+2*slack(d) {
			return
		}
		d += slack(d)
	}
	c.readBy = now.Add(d)
	_ = c.conn.SetReadDeadline(c.readBy) // a closed connection fails the read
}

// handshake completes TLS. It reports failures to nobody: scanners and
// clients that hang up are the rule.
func (c *client) handshake() bool {
	c.below = newHTTP2Conn(c)
	conn := tls.Server(c.below, c.port.tls)
	c.conn, c.secure = conn, true
	ctx, cancel := context.WithTimeout(context.Background(), c.opts().HeadTimeout)
	defer cancel()
	err := conn.HandshakeContext(ctx)
	if err == nil {
		c.sni = normalizeSNI(conn.ConnectionState().ServerName)
		return true
	}
	c.port.server.opts.Metrics.handshakeErrors.Inc()
	var record tls.RecordHeaderError
	if errors.As(err, &record) && record.Conn != nil && looksLikeHTTP(record.RecordHeader) {
		_ = record.Conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(record.Conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"+
			"400 Bad Request: this port speaks HTTPS, the request was plain HTTP.\n")
	}
	return false
}

func looksLikeHTTP(record [5]byte) bool {
	switch string(record[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH":
		return true
	}
	return false
}

// awaitRequest waits until a request begins. It returns false when there will
// be none.
func (c *client) awaitRequest() bool {
	if !c.state.CompareAndSwap(stateBusy, stateIdle) && !c.state.CompareAndSwap(stateNew, stateIdle) {
		return false
	}
	if c.in.Buffered() == 0 {
		if c.port.closing.Load() {
			return false
		}
		if err := c.in.Fill(c.opts().MaxHead); err != nil {
			return false
		}
	}
	return c.state.CompareAndSwap(stateIdle, stateBusy)
}

// closeIfIdle closes the connection if no request is under way.
func (c *client) closeIfIdle() {
	if c.state.CompareAndSwap(stateIdle, stateClosed) {
		c.tcp.Close()
	}
}

// cut ends the connection whatever it does.
func (c *client) cut() {
	c.tcp.Close()
	c.waiter.abandon()
}

// preface is how a client says that it speaks HTTP/2 (RFC 9113 §3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// isPreface tells whether the input begins with enough of the preface to be
// nothing else.
func isPreface(in *http1.Reader) bool {
	return bytes.HasPrefix(in.Peek(), []byte(preface[:len("PRI * HTTP/2")]))
}

// serveRequest serves one request. It returns whether the connection can take
// another.
func (c *client) serveRequest() bool {
	now := time.Now()
	c.inHead = true
	if !bytes.Contains(c.in.Peek(), []byte("\r\n\r\n")) {
		c.readWithin(now, c.opts().HeadTimeout, true)
	}
	head, err := c.in.Head(c.opts().MaxHead)
	c.inHead = false
	x := &c.x
	x.begin(c.port, now)
	x.remote, x.secure, x.sni = c.addr, c.secure, c.sni
	x.peer = c.remote.Addr()
	x.reply, x.waiter = c, &c.waiter
	if err == nil {
		// One copy, so that fields are plain strings that may outlive the
		// buffer.
		err = http1.ParseRequest(&x.http1, string(head))
	}
	if err != nil {
		return c.refuse(x, err)
	}
	r := &x.http1
	x.proto = "HTTP/1.1"
	if r.Minor == 0 {
		x.proto = "HTTP/1.0"
	}
	x.request = routing.Request{Path: r.Path, Query: r.Query, Method: r.Method, Fields: r.Fields}
	x.authority, x.length = r.Host, r.Length
	x.body.Reset(&c.in, r.Length, c.opts().MaxBody)
	x.requestBody = &x.body
	x.closing = r.Close || c.port.leaving()
	x.serve()
	if x.aborted || x.tunnelled {
		return false
	}
	return c.finish(x)
}

// refuse answers a request that could not be read, and reports that the
// connection is at its end.
func (c *client) refuse(x *exchange, err error) bool {
	defer x.release()
	x.closing = true
	switch {
	case errors.Is(err, http1.ErrHeadTooLarge):
		x.fail(431, "the request's header fields are too large")
	case errors.Is(err, http1.ErrVersion):
		x.fail(505, "use HTTP/1.1 or HTTP/2")
	case errors.Is(err, http1.ErrCoding):
		x.fail(501, "the only transfer coding understood is chunked")
	case errors.Is(err, http1.ErrMalformed):
		x.fail(400, err.Error())
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.fail(408, "the request took too long to arrive")
	default:
		return false // the client is gone
	}
	x.record()
	c.linger()
	return false
}

// finish gets the connection ready for the next request: the rest of the
// body, if it is short, is read and thrown away.
func (c *client) finish(x *exchange) bool {
	if !x.body.Done() && !x.awaitsContinue() {
		var sink [4 << 10]byte
		for n := 0; n < 256<<10 && !x.body.Done(); {
			m, err := x.body.Read(sink[:])
			if n += m; err != nil {
				break
			}
		}
	}
	if !x.body.Done() {
		c.linger()
		return false
	}
	if x.closing {
		return false
	}
	return true
}

// linger makes sure the client can read the last response although it is still
// sending: closing at once would reset the connection (RFC 9112 §9.6).
func (c *client) linger() {
	half, ok := c.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	_, _ = io.CopyN(io.Discard, c.conn, 1<<20)
}

// hungUp tells whether the peer of a TCP connection has closed it.
func hungUp(conn net.Conn) bool {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		// Linux' tcp_states.h: 7 is CLOSE, 8 is CLOSE_WAIT.
		gone = err == nil && (info.State == 7 || info.State == 8)
	})
	return err != nil || gone
}
