package proxy

import (
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/routing"
)

// exchange is one request and its response. It belongs to one goroutine; it is
// used again for the next request of an HTTP/1.1 connection.
type exchange struct {
	port   *port
	routes *portRoutes
	start  time.Time

	// The request, as received.
	request routing.Request
	http1   http1.Request
	proto   string
	remote  string // the client's address without port
	peer    netip.Addr
	secure  bool
	sni     string
	length  int64 // of the body; -1 unknown
	body    http1.Body
	// requestBody is what is sent to the backend.
	requestBody requestBody
	reply       reply

	// The request, as it goes to the backend.
	fields    []http1.Field
	authority string
	path      string // with query
	action    *action
	target    *target
	deadline  time.Time // of the whole exchange; zero is none

	// closing says that the client's connection ends after this exchange.
	closing bool
	// waiter is told which backend is waited for.
	waiter *waiter
	// continued says that the client was told to send its body.
	continued bool
	// aborted says that the response broke off; tunnelled that the connection
	// became a tunnel and is over.
	aborted, tunnelled bool
	status             int
	sent               int64
	problem            string // why the gateway itself failed the request
	endpoint           string
	attempts           int

	upstream     http1.Response
	upstreamBody http1.Body
	buf          []byte
}

// requestBody is a request's body on its way to a backend.
type requestBody interface {
	io.Reader
	// Buffered tells whether all of it can be read at once, and is short.
	Buffered() bool
	Ready() bool
	Trailers() []http1.Field
}

// reply is the client's side of an exchange.
type reply interface {
	// inform sends an informational response other than 100 and 101.
	inform(status int, fields []http1.Field) error
	// proceed tells the client to send the body it holds back.
	proceed() error
	// respond sends the final response. Source is nil for an empty body. It
	// reports which side failed.
	respond(x *exchange, r *response, source http1.Source) (readErr, writeErr error)
	// stopBody makes a Read of the request's body that hangs in another
	// goroutine return.
	stopBody()
	// hijack returns the client's connection and what was read from it ahead,
	// to be used raw; nil where that is impossible.
	hijack() (net.Conn, []byte)
}

// response is the head of a final response.
type response struct {
	status int
	reason string
	fields []http1.Field
	// length is that of the body as in [http1.Response].
	length   int64
	declared int64
}

// buffers recycles what heads and bodies pass through.
var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// begin readies x for a request, keeping its memory.
func (x *exchange) begin(p *port, now time.Time) {
	*x = exchange{
		port: p, routes: p.routes.Load(), start: now,
		http1: x.http1, body: x.body, fields: x.fields[:0], buf: x.buf,
		upstream: x.upstream, upstreamBody: x.upstreamBody,
	}
}

// space returns the exchange's buffer, empty.
func (x *exchange) space() []byte {
	if x.buf == nil {
		x.buf = *buffers.Get().(*[]byte)
	}
	return x.buf[:0]
}

// release gives the buffer back.
func (x *exchange) release() {
	if x.buf != nil {
		b := x.buf
		buffers.Put(&b)
		x.buf = nil
	}
}

// serve answers the request: it finds the rule and carries it out.
func (x *exchange) serve() {
	x.route()
	x.end()
}

// end records the exchange and gives its buffer back.
func (x *exchange) end() {
	x.record()
	x.release()
}

func (x *exchange) route() {
	if x.request.Method == "CONNECT" {
		x.closing = true // what follows is not HTTP
		x.fail(405, "this gateway is no forward proxy")
		return
	}
	var dots bool
	raw := x.request.Path
	x.request.Host = routing.NormalizeHost(x.authority)
	x.request.Path, dots = routing.NormalizePath(raw)
	if x.secure && x.request.Host != x.sni && !x.routes.table.SameListener(x.sni, x.request.Host) {
		x.fail(421, "this connection was made for another host")
		return
	}
	action, outcome := x.routes.table.Lookup(&x.request)
	switch outcome {
	case routing.NoHost:
		x.fail(404, "no route for host "+strconv.Quote(x.request.Host)+" here. Routes are listed by: kubectl get httproutes -A")
		return
	case routing.NoRule:
		x.fail(404, "no rule of the routes for host "+strconv.Quote(x.request.Host)+" matches this request")
		return
	}
	x.action = action
	if dots {
		raw = x.request.Path
	}
	x.path = raw
	rule := action.rule
	if d := rule.RequestTimeout; d > 0 {
		x.deadline = x.start.Add(d)
	}
	if cors := rule.cors; cors != nil && cors.answer(x) {
		return
	}
	if rule.Filters.Redirect != nil {
		x.redirect(rule.Filters.Redirect)
		return
	}
	x.target = rule.choose()
	switch {
	case x.target == nil:
		x.fail(500, "the rule names no backend")
		return
	case x.target.Problem != "":
		x.fail(500, "the route's backend cannot be used: "+x.target.Problem)
		return
	}
	x.prepare()
	x.mirror(rule.mirrors)
	x.mirror(x.target.mirrors)
	if x.target.ID.Protocol == model.HTTP2 {
		x.forwardHTTP2()
		return
	}
	x.forwardHTTP1()
}

// prepare makes the request for the backend: fields without those of this hop
// and without a client's claims about itself, edited by the filters.
func (x *exchange) prepare() {
	trusted := x.port.server.trusts(x.peer)
	forwardedFor := x.remote
	host, proto := x.authority, "http"
	if x.secure {
		proto = "https"
	}
	for i := range x.request.Fields {
		f := &x.request.Fields[i]
		switch {
		case f.Kind.HopByHop() || f.Kind == http1.Host:
			continue
		case f.Kind.Provenance():
			if !trusted {
				continue
			}
			switch f.Kind {
			case http1.XForwardedFor:
				forwardedFor = f.Value + ", " + forwardedFor
				continue
			case http1.XForwardedHost:
				host = f.Value
				continue
			case http1.XForwardedProto:
				proto = f.Value
				continue
			}
		}
		x.fields = append(x.fields, *f)
	}
	x.fields = append(x.fields,
		http1.Field{Name: "X-Forwarded-For", Value: forwardedFor, Kind: http1.XForwardedFor},
		http1.Field{Name: "X-Forwarded-Host", Value: host, Kind: http1.XForwardedHost},
		http1.Field{Name: "X-Forwarded-Proto", Value: proto, Kind: http1.XForwardedProto},
	)
	rule, target := x.action.rule, x.target
	if rule.Filters.RequestHeaders != nil {
		x.fields = edit(x.fields, rule.Filters.RequestHeaders)
	}
	if target.RequestHeaders != nil {
		x.fields = edit(x.fields, target.RequestHeaders)
	}
	for _, rewrite := range [...]*model.Rewrite{rule.Filters.Rewrite, target.Rewrite} {
		if rewrite == nil {
			continue
		}
		if rewrite.Hostname != "" {
			x.authority = rewrite.Hostname
		}
		if rewrite.Path != nil {
			x.path = x.action.editPath(rewrite.Path, x.request.Path)
		}
	}
	if x.request.Query != "" {
		x.path += "?" + x.request.Query
	}
}

// trusts tells whether a peer's word about clients behind it is believed.
func (s *Server) trusts(peer netip.Addr) bool {
	for _, p := range s.opts.Trusted {
		if p.Contains(peer.Unmap()) {
			return true
		}
	}
	return false
}

// editResponse applies the response filters.
func (x *exchange) editResponse(fields []http1.Field) []http1.Field {
	if x.action == nil {
		return fields
	}
	if x.target != nil && x.target.ResponseHeaders != nil {
		fields = edit(fields, x.target.ResponseHeaders)
	}
	rule := x.action.rule
	if rule.Filters.ResponseHeaders != nil {
		fields = edit(fields, rule.Filters.ResponseHeaders)
	}
	if rule.cors != nil {
		fields = rule.cors.mark(x, fields)
	}
	return fields
}

// awaitsContinue tells whether the client holds its body back.
func (x *exchange) awaitsContinue() bool { return x.http1.Continue && !x.continued }

// letBodyCome tells the client to send its body, if it waits to be told.
func (x *exchange) letBodyCome() error {
	if !x.awaitsContinue() {
		return nil
	}
	x.continued = true
	return x.reply.proceed()
}

// fail answers with an error of the gateway's own, as plain text.
func (x *exchange) fail(status int, why string) {
	x.problem = why
	x.respondText(status, nil, strconv.Itoa(status)+" "+statusText(status)+": "+why+"\n")
}

// respondText sends a response of the gateway's own.
func (x *exchange) respondText(status int, fields []http1.Field, text string) {
	r := &response{status: status, reason: statusText(status), length: int64(len(text)), declared: int64(len(text))}
	r.fields = append(r.fields, fields...)
	var source http1.Source
	if text != "" {
		r.fields = append(r.fields, http1.Field{Name: "Content-Type", Value: "text/plain; charset=utf-8", Kind: http1.ContentType})
		source = &textSource{text: text}
	}
	if x.action != nil && x.action.rule.cors != nil {
		r.fields = x.action.rule.cors.mark(x, r.fields)
	}
	if _, err := x.respond(r, source); err != nil {
		x.aborted = true
	}
}

// respond sends the final response and remembers it for the record.
func (x *exchange) respond(r *response, source http1.Source) (readErr, writeErr error) {
	x.status = r.status
	if x.port.leaving() {
		x.closing = true
	}
	return x.reply.respond(x, r, source)
}

// textSource is a short body.
type textSource struct{ text string }

func (t *textSource) Read(p []byte) (int, error) {
	n := copy(p, t.text)
	t.text = t.text[n:]
	if t.text == "" {
		return n, io.EOF
	}
	return n, nil
}

func (t *textSource) Ready() bool             { return true }
func (t *textSource) Trailers() []http1.Field { return nil }
