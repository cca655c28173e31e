package proxy

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/upstream"
)

// sender sends a request's body while the response is awaited: a backend may
// answer before it has read all.
type sender struct {
	ended chan struct{}
	err   error // valid once ended is closed; a *bodyError for the client's side
}

// bodyError is an error of the client's body, not of the backend.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "read the request's body: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// startBody begins to send the body in a goroutine, which stopBody waits for.
func (x *exchange) startBody(conn *upstream.Conn) *sender {
	s := &sender{ended: make(chan struct{})}
	body, chunked := x.requestBody, x.length < 0
	go func() {
		b := buffers.Get().(*[]byte)
		defer buffers.Put(b)
		_, readErr, writeErr := http1.Send(conn, (*b)[:0], body, chunked)
		if s.err = writeErr; readErr != nil {
			s.err = &bodyError{readErr}
		}
		close(s.ended)
		if readErr != nil {
			// The backend waits for the rest, in vain. Whoever waits for the
			// backend finds the reason in s.err.
			conn.Close()
		}
	}()
	return s
}

// done tells whether the whole body was sent, or is within the given time.
func (s *sender) done(within time.Duration) bool {
	select {
	case <-s.ended:
		return s.err == nil
	default:
	}
	limit := time.NewTimer(within)
	defer limit.Stop()
	select {
	case <-s.ended:
		return s.err == nil
	case <-limit.C:
		return false
	}
}

// stopBody ends the sending of the body, closing the connection if that is
// what it takes, and returns what went wrong on the client's side.
func (x *exchange) stopBody(s *sender, conn *upstream.Conn) error {
	if s == nil {
		return nil
	}
	select {
	case <-s.ended:
		var client *bodyError
		if errors.As(s.err, &client) {
			return client
		}
		return nil
	default:
	}
	x.closing = true // the client's next bytes are the rest of the body
	conn.Close()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		// Repeated because the read may begin, with a deadline of its own,
		// just after it was told to end.
		x.reply.stopBody()
		select {
		case <-s.ended:
			return nil
		case <-again.C:
		}
	}
}

// waiter holds the backend's connection while its response is awaited and no
// one reads from the client: whoever notices that the client is gone closes
// it.
type waiter struct {
	conn  atomic.Pointer[upstream.Conn]
	since atomic.Int64 // Unix nanoseconds; 0 while there is no connection
}

func (w *waiter) wait(c *upstream.Conn, now time.Time) {
	w.conn.Store(c)
	w.since.Store(now.UnixNano())
}

// stop ends the wait. It returns false if the connection was closed.
func (w *waiter) stop() bool {
	w.since.Store(0)
	return w.conn.Swap(nil) != nil
}

// abandon closes the connection waited for, if any.
func (w *waiter) abandon() {
	if c := w.conn.Swap(nil); c != nil {
		c.Close()
	}
}
