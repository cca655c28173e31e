package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/upstream"
)

// forwardHTTP1 sends the request to an endpoint of the target over HTTP/1.1
// and the response to the client. Endpoints are tried in turn as long as the
// backend cannot have acted on the request twice.
func (x *exchange) forwardHTTP1() {
	opts := &x.port.server.opts
	// The head, and a short body with it, is written as one piece, and again
	// for another attempt.
	out := x.appendRequest(x.space())
	whole := x.length == 0
	if x.length > 0 && !x.awaitsContinue() && x.requestBody.Buffered() && x.length <= int64(cap(out)-len(out)) {
		n, err := io.ReadFull(x.requestBody, out[len(out):len(out)+int(x.length)])
		if err != nil {
			x.failBody(err)
			return
		}
		out, whole = out[:len(out)+n], true
	}
	repeatable := whole && (x.idempotent() || field(x.fields, "idempotency-key") != "")

	var tried []*upstream.Endpoint
	var lastErr error
	now, fresh := x.start, false
	for x.attempts < opts.Attempts {
		if x.attempts > 0 {
			now = time.Now()
			if !x.deadline.IsZero() && !now.Before(x.deadline) {
				break
			}
		}
		e := x.target.live.Pick(now, tried)
		if e == nil {
			x.fail(503, "backend "+x.backendName()+" has no ready endpoint")
			return
		}
		x.endpoint = e.Address
		ctx, cancel := x.context(now)
		conn, err := e.Take(ctx, now, fresh, !repeatable)
		cancel()
		if err != nil {
			// Nothing was sent: any request may try elsewhere.
			x.attempts++
			e.Failed(now)
			e.Done()
			tried, lastErr = append(tried, e), err
			continue
		}
		verdict, err := x.attempt(e, conn, now, out, whole)
		e.Done()
		switch {
		case verdict == answered:
			return
		case verdict == unanswered && repeatable && conn.Reused:
			// Most likely the backend closed the connection just as it was
			// taken. That says nothing about the endpoint.
			fresh = true
		case verdict == unanswered && repeatable:
			x.attempts++
			e.Failed(now)
			tried = append(tried, e)
		default:
			x.failAttempt(err)
			return
		}
		lastErr = err
	}
	x.failAttempt(lastErr)
}

// verdict is how an attempt at an endpoint ended.
type verdict uint8

const (
	// answered: the client has its response, or the start of one.
	answered verdict = iota
	// unanswered: the endpoint broke off before its response began.
	unanswered
	// failed: it cannot be repeated.
	failed
)

// attempt sends the request over one connection and passes the response on.
func (x *exchange) attempt(e *upstream.Endpoint, conn *upstream.Conn, now time.Time, out []byte, whole bool) (verdict, error) {
	limit, exact := x.backendLimit(now)
	_ = conn.ReadWithin(now, limit, exact) // a closed connection fails the read
	_ = conn.WriteWithin(now, x.port.server.opts.StallTimeout)
	x.waiter.wait(conn, now)
	var sender *sender
	if _, err := conn.Write(out); err != nil {
		x.waiter.stop()
		conn.Discard()
		return unanswered, err
	}
	if !whole {
		if err := x.letBodyCome(); err != nil {
			x.waiter.stop()
			conn.Discard()
			x.aborted = true
			return answered, err
		}
		sender = x.startBody(conn)
	}
	resp := &x.upstream
	err := x.readHead(conn, resp)
	if !x.waiter.stop() {
		// The client hung up, and the connection was closed for it.
		x.stopBody(sender, conn)
		conn.Discard()
		x.aborted, x.problem = true, "the client hung up"
		x.status = 499
		return answered, nil
	}
	if err != nil {
		sendErr := x.stopBody(sender, conn)
		conn.Discard()
		if sendErr != nil {
			return failed, sendErr
		}
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, http1.ErrMalformed) || conn.In.Buffered() > 0 {
			return failed, err
		}
		return unanswered, err
	}
	e.Worked()
	if resp.Status == 101 {
		x.tunnel(conn, resp)
		return answered, nil
	}
	x.passResponse(conn, resp, sender, exact)
	return answered, nil
}

// readHead reads heads until the final one, or one that ends HTTP. Others are
// passed on.
func (x *exchange) readHead(conn *upstream.Conn, resp *http1.Response) error {
	for {
		head, err := conn.In.Head(x.port.server.opts.MaxHead)
		if err != nil {
			return err
		}
		if err := http1.ParseResponse(resp, string(head), x.request.Method); err != nil {
			return err
		}
		switch {
		case resp.Status == 101 && x.http1.Upgrade == "":
			return http1.ErrMalformed
		case resp.Status >= 200 || resp.Status == 101:
			return nil
		case resp.Status != 100:
			if err := x.reply.inform(resp.Status, resp.Fields); err != nil {
				return err
			}
		}
	}
}

// passResponse sends a final response to the client, and puts the connection
// back or closes it.
func (x *exchange) passResponse(conn *upstream.Conn, resp *http1.Response, sender *sender, exact bool) {
	r := &response{status: resp.Status, reason: resp.Reason, length: resp.Length, declared: resp.Declared}
	hint := keepAliveHint(resp.Fields)
	r.fields = x.editResponse(resp.Fields)
	var source http1.Source
	x.upstreamBody.Reset(&conn.In, resp.Length, -1)
	if resp.Length != 0 {
		source = &x.upstreamBody
		if !exact && !x.upstreamBody.Buffered() {
			// A body may take as long as it takes; see watchClients for
			// clients that leave.
			_ = conn.ReadWithin(x.start, 0, false)
		}
	}
	readErr, writeErr := x.respond(r, source)
	if readErr != nil || writeErr != nil {
		x.aborted = true
		if readErr != nil {
			x.problem = "the backend broke off its response: " + readErr.Error()
		}
	}
	sent := sender == nil || sender.done(100*time.Millisecond)
	if !sent {
		// The backend answered without wanting all of the body. What the
		// client still sends has nowhere to go.
		x.stopBody(sender, conn)
		x.closing = true
	}
	if x.aborted || resp.Close || !sent || !x.upstreamBody.Done() && resp.Length != 0 {
		conn.Discard()
		return
	}
	conn.Put(x.start, hint)
}

// keepAliveHint returns how long a backend says it keeps idle connections.
func keepAliveHint(fields []http1.Field) time.Duration {
	for i := range fields {
		if fields[i].Kind != http1.KeepAlive {
			continue
		}
		for part := range strings.SplitSeq(fields[i].Value, ",") {
			if s, ok := strings.CutPrefix(strings.TrimSpace(part), "timeout="); ok {
				if n, err := strconv.Atoi(s); err == nil && n >= 0 && n < 1<<20 {
					return max(time.Duration(n)*time.Second, time.Millisecond)
				}
			}
		}
	}
	return 0
}

// appendRequest appends the request's head for an HTTP/1.1 backend.
func (x *exchange) appendRequest(out []byte) []byte {
	out = append(out, x.request.Method...)
	out = append(out, ' ')
	out = append(out, x.path...)
	out = append(out, " HTTP/1.1\r\n"...)
	out = http1.AppendField(out, "Host", x.authority)
	out = http1.AppendFields(out, x.fields)
	if x.length != 0 || x.request.Method == "POST" || x.request.Method == "PUT" || x.request.Method == "PATCH" {
		out = http1.AppendLength(out, x.length)
	}
	if x.http1.Upgrade != "" {
		out = http1.AppendField(out, "Connection", "Upgrade")
		out = http1.AppendField(out, "Upgrade", x.http1.Upgrade)
	}
	return append(out, "\r\n"...)
}

// idempotent tells whether the request may be repeated (RFC 9110 §9.2.2).
func (x *exchange) idempotent() bool {
	switch x.request.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return x.http1.Upgrade == ""
	}
	return false
}

// context returns a context for connecting.
func (x *exchange) context(now time.Time) (context.Context, context.CancelFunc) {
	if x.deadline.IsZero() {
		return context.Background(), func() {}
	}
	return context.WithTimeout(context.Background(), x.deadline.Sub(now))
}

// backendLimit returns how long the attempt may take, and whether the rule
// said so.
func (x *exchange) backendLimit(now time.Time) (d time.Duration, exact bool) {
	switch d = x.action.rule.BackendTimeout; {
	case d > 0:
		exact = true
	case d == 0:
		d = x.port.server.opts.BackendTimeout
	default:
		d = 0
	}
	if x.action.rule.RequestTimeout < 0 && !exact {
		d = 0
	}
	if !x.deadline.IsZero() {
		if left := max(x.deadline.Sub(now), time.Millisecond); d == 0 || left < d || !exact {
			d, exact = left, true
		}
	}
	return d, exact
}

func (x *exchange) backendName() string {
	id := x.target.ID
	return id.Namespace + "/" + id.Service + ":" + strconv.Itoa(int(id.Port))
}

// failAttempt answers for a backend that did not.
func (x *exchange) failAttempt(err error) {
	var client *bodyError
	var timeout net.Error
	switch {
	case errors.As(err, &client):
		x.failBody(client.err)
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		x.fail(504, "backend "+x.backendName()+" took too long to answer")
	case errors.Is(err, http1.ErrHeadTooLarge):
		x.fail(502, "backend "+x.backendName()+" sent too many header fields")
	case errors.Is(err, http1.ErrMalformed), errors.Is(err, http1.ErrCoding), errors.Is(err, http1.ErrVersion):
		x.fail(502, "backend "+x.backendName()+" did not answer in HTTP/1.1")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		x.fail(502, "backend "+x.backendName()+" closed the connection without an answer")
	default:
		x.fail(502, "backend "+x.backendName()+" cannot be reached")
	}
	if err != nil && x.status == 502 {
		x.problem += ": " + err.Error()
	}
}

// failBody answers for a request body that could not be read.
func (x *exchange) failBody(err error) {
	x.closing = true
	switch {
	case errors.Is(err, http1.ErrBodyTooLarge):
		x.fail(413, "the request's body is too large")
	case errors.Is(err, http1.ErrMalformed):
		x.fail(400, err.Error())
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.fail(408, "the request's body took too long to arrive")
	default:
		x.aborted, x.status, x.problem = true, 499, "the client hung up"
	}
}
