package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
)

// Conn is a connection to an endpoint that speaks HTTP/1.1. One goroutine at a
// time reads from it, and one writes.
type Conn struct {
	net.Conn
	// In is the connection's input.
	In http1.Reader
	// Reused says that an earlier request was sent on the connection, so that
	// the backend may be closing it at this moment.
	Reused bool

	endpoint *Endpoint
	expires  time.Time // when idle, the time to close it
	deadline time.Time // the read deadline in force; zero is none
	writeBy  time.Time // the write deadline in force; zero is none
}

// inputBuffers recycles the buffers of connections, which only connections in
// use have.
var inputBuffers = sync.Pool{New: func() any { b := make([]byte, inputBuffer); return &b }}

// inputBuffer holds the head of almost every response, and small bodies.
const inputBuffer = 8 << 10

// Take returns a connection to the endpoint: an idle one, or a new one if
// there is none or fresh is set. Sure says that the request cannot be repeated,
// so that an idle connection is checked not to be closed already.
func (e *Endpoint) Take(ctx context.Context, now time.Time, fresh, sure bool) (*Conn, error) {
	for !fresh {
		c := e.pop(now)
		if c == nil {
			break
		}
		if sure && !c.alive() {
			c.Close()
			continue
		}
		c.Reused = true
		c.In.Reset(c.Conn, *inputBuffers.Get().(*[]byte))
		return c, nil
	}
	raw, err := e.backend.reg.dial(ctx, e.backend, e.Address)
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: raw, endpoint: e}
	c.In.Reset(raw, *inputBuffers.Get().(*[]byte))
	return c, nil
}

func (e *Endpoint) pop(now time.Time) *Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.idle) > 0 {
		c := e.idle[len(e.idle)-1]
		e.idle = e.idle[:len(e.idle)-1]
		if now.Before(c.expires) {
			return c
		}
		// The run loop closes the older ones.
		c.Close()
	}
	return nil
}

// Put gives a connection back for reuse. The last response must have been read
// to its end. Hint is how long the backend says it keeps idle connections, or
// zero.
func (c *Conn) Put(now time.Time, hint time.Duration) {
	if c.In.Buffered() > 0 {
		// Bytes that belong to no response: the two sides disagree.
		c.Discard()
		return
	}
	c.release()
	keep := c.endpoint.backend.reg.opts.IdleTimeout
	if hint > 0 {
		// Leave the backend a second, so that it does not close the
		// connection while a request is on its way.
		keep = min(keep, max(hint-time.Second, 0))
	}
	c.expires = now.Add(keep)
	e := c.endpoint
	e.mu.Lock()
	ok := !e.closed && len(e.idle) < e.backend.reg.opts.MaxIdle && keep > 0
	if ok {
		e.idle = append(e.idle, c)
	}
	e.mu.Unlock()
	if !ok {
		c.Close()
	}
}

// Discard closes a connection that cannot be reused.
func (c *Conn) Discard() {
	c.release()
	c.Close()
}

func (c *Conn) release() {
	if b := c.In.Buffer(); len(b) == inputBuffer {
		inputBuffers.Put(&b)
	}
	c.In.Reset(nil, nil)
}

// slack is how much later than asked a deadline may come: setting one costs
// nearly as much as a system call, so it is done rarely.
func slack(d time.Duration) time.Duration { return min(d/8, 5*time.Second) }

// ReadWithin makes reads fail that have not ended after d, or up to a few
// seconds later. Exact asks for no delay. Zero means never.
func (c *Conn) ReadWithin(now time.Time, d time.Duration, exact bool) error {
	var err error
	c.deadline, err = moveDeadline(c.Conn.SetReadDeadline, c.deadline, now, d, exact)
	return err
}

// WriteWithin is ReadWithin for writes.
func (c *Conn) WriteWithin(now time.Time, d time.Duration) error {
	var err error
	c.writeBy, err = moveDeadline(c.Conn.SetWriteDeadline, c.writeBy, now, d, false)
	return err
}

func moveDeadline(set func(time.Time) error, have, now time.Time, d time.Duration, exact bool) (time.Time, error) {
	if d <= 0 {
		if have.IsZero() {
			return have, nil
		}
		return time.Time{}, set(time.Time{})
	}
	want := now.Add(d)
	if !exact {
		if !have.Before(want) && have.Before(want.Add(2*slack(d))) {
			return have, nil
		}
		want = want.Add(slack(d))
	}
	return want, set(want)
}

// alive tells whether an idle connection is still open, as far as this side
// knows. It takes one system call and consumes nothing.
func (c *Conn) alive() bool {
	under := c.Conn
	secure, isTLS := under.(*tls.Conn)
	if isTLS {
		under = secure.NetConn()
	}
	sc, ok := under.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	alive := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case err == unix.EAGAIN:
			alive = true
		case err == nil && n > 0:
			// In plain text nobody asked for these bytes. In TLS they may be
			// session tickets.
			alive = isTLS
		}
	})
	return err == nil && alive
}
