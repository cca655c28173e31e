package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/upstream"
)

// Why a request to an HTTP/2 backend was given up.
var (
	errTooSlow = errors.New("the backend took too long")
	errHungUp  = errors.New("the client hung up")
)

// forwardHTTP2 sends the request to an endpoint of the target over HTTP/2, by
// means of net/http, and the response to the client.
func (x *exchange) forwardHTTP2() {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	if s, ok := x.reply.(*stream); ok {
		stop := context.AfterFunc(s.r.Context(), func() { cancel(errHungUp) })
		defer stop()
	}
	limit, exact := x.backendLimit(x.start)
	started := func() {} // called when the response begins
	if limit > 0 {
		t := time.AfterFunc(limit, func() { cancel(errTooSlow) })
		defer t.Stop()
		if !exact {
			// The limit is for the wait only: streams may last.
			started = func() { t.Stop() }
		}
	}
	if err := x.letBodyCome(); err != nil {
		x.aborted = true
		return
	}
	req, body := x.requestHTTP2(ctx)
	var tried []*upstream.Endpoint
	for {
		x.attempts++
		e := x.target.live.Pick(x.start, tried)
		if e == nil {
			x.fail(503, "backend "+x.backendName()+" has no ready endpoint")
			return
		}
		x.endpoint, req.URL.Host = e.Address, e.Address
		resp, err := x.target.live.Client().RoundTrip(req)
		if err == nil {
			started()
			e.Worked()
			x.passHTTP2(resp)
			e.Done()
			return
		}
		e.Done()
		if ctx.Err() == nil {
			e.Failed(time.Now())
		}
		tried = append(tried, e)
		if x.attempts >= x.port.server.opts.Attempts || ctx.Err() != nil || body.touched || !x.idempotent() && !isDialError(err) {
			x.failHTTP2(context.Cause(ctx), body, err)
			return
		}
	}
}

// requestHTTP2 makes the request for net/http.
func (x *exchange) requestHTTP2(ctx context.Context) (*http.Request, *sentBody) {
	path, query, _ := strings.Cut(x.path, "?")
	u := &url.URL{Scheme: "http", RawQuery: query}
	if x.target.live.Secure() {
		u.Scheme = "https"
	}
	// Opaque would lose the host; Path with RawPath keeps the spelling.
	if decoded, err := url.PathUnescape(path); err == nil {
		u.Path, u.RawPath = decoded, path
	} else {
		u.Path = path
	}
	req := (&http.Request{Method: x.request.Method, URL: u, Host: x.authority, Header: headerOf(x.fields)}).WithContext(ctx)
	if x.http1.Trailers {
		req.Header["Te"] = []string{"trailers"} // gRPC insists on it
	}
	body := &sentBody{from: x.requestBody}
	if x.length != 0 {
		req.Body, req.ContentLength = body, x.length
		req.Trailer = http.Header{}
		body.trailer = req.Trailer
	}
	return req, body
}

// sentBody is the body of a request to an HTTP/2 backend.
type sentBody struct {
	from    requestBody
	trailer http.Header
	touched bool // a retry would lack what was read
	err     error
}

func (b *sentBody) Read(p []byte) (int, error) {
	b.touched = true
	n, err := b.from.Read(p)
	switch {
	case err == io.EOF:
		for _, f := range b.from.Trailers() {
			b.trailer.Add(f.Name, f.Value)
		}
	case err != nil:
		b.err = err
	}
	return n, err
}

func (b *sentBody) Close() error { return nil }

// passHTTP2 sends the response to the client.
func (x *exchange) passHTTP2(resp *http.Response) {
	defer resp.Body.Close()
	r := &response{status: resp.StatusCode, reason: statusText(resp.StatusCode), length: resp.ContentLength, declared: resp.ContentLength}
	for name, values := range resp.Header {
		kind := http1.KindOf(name)
		for _, v := range values {
			r.fields = append(r.fields, http1.Field{Name: name, Value: v, Kind: kind})
		}
	}
	r.fields = x.editResponse(r.fields)
	var source http1.Source = &receivedBody{resp}
	if resp.ContentLength == 0 || x.request.Method == "HEAD" || resp.StatusCode == 204 || resp.StatusCode == 304 {
		source = nil
	}
	readErr, writeErr := x.respond(r, source)
	if readErr != nil || writeErr != nil {
		x.aborted = true
		if readErr != nil {
			x.problem = "the backend broke off its response: " + readErr.Error()
		}
	}
}

// receivedBody is the body of a response from an HTTP/2 backend.
type receivedBody struct{ resp *http.Response }

func (b *receivedBody) Read(p []byte) (int, error) { return b.resp.Body.Read(p) }
func (b *receivedBody) Ready() bool                { return false }

func (b *receivedBody) Trailers() []http1.Field {
	var out []http1.Field
	for name, values := range b.resp.Trailer {
		for _, v := range values {
			out = append(out, http1.NewField(name, v))
		}
	}
	return out
}

// isDialError tells whether no connection was made, so that nothing was sent.
func isDialError(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func (x *exchange) failHTTP2(cause error, body *sentBody, err error) {
	switch {
	case errors.Is(cause, errHungUp):
		x.aborted, x.status, x.problem = true, 499, "the client hung up"
	case errors.Is(cause, errTooSlow):
		x.failAttempt(context.DeadlineExceeded)
	case body.err != nil:
		x.failBody(body.err)
	default:
		x.failAttempt(err)
	}
}
