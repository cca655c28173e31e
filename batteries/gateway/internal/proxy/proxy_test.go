package proxy

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/routing"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/upstream"
)

// harness is a running Server with one plain and one TLS port.
type harness struct {
	t             testing.TB
	server        *Server
	plain, secure uint16
	config        model.Config
	stop          func()
	roots         *x509.CertPool
	cert          *tls.Certificate
}

// start runs a server whose rules all belong to the listener for any host of
// both ports. Change edits the options.
func start(t testing.TB, change func(*Options)) *harness {
	t.Helper()
	opts := Options{
		Log: slog.New(slog.DiscardHandler), Metrics: NewMetrics(),
		Upstream: upstream.Options{ConnectTimeout: time.Second, IdleTimeout: time.Minute, MaxIdle: 64},
		MaxHead:  16 << 10, MaxBody: 8 << 20, HeadTimeout: 2 * time.Second, IdleTimeout: 5 * time.Second, StallTimeout: 2 * time.Second,
		BackendTimeout: 5 * time.Second, Attempts: 3, DrainTimeout: 2 * time.Second,
	}
	if change != nil {
		change(&opts)
	}
	h := &harness{t: t, server: New(opts), plain: freePort(t), secure: freePort(t)}
	h.cert, h.roots = selfSigned(t, "*.example", "example")
	h.config.Backends = map[model.BackendID]model.BackendSpec{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.server.Run(ctx) }()
	stopped := false
	h.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(h.stop)
	return h
}

// freePort returns a port that no one else takes or calls meanwhile: the kernel
// gives out none of these by itself.
func freePort(t testing.TB) uint16 {
	t.Helper()
	for range 100 {
		port := uint16(10000 + mathrand.IntN(20000))
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			continue
		}
		l.Close()
		return port
	}
	t.Fatal("no port is free")
	return 0
}

func selfSigned(t testing.TB, names ...string) (*tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

// backend makes a handler reachable as a backend of the given name.
func (h *harness) backend(name string, protocol model.Protocol, handler http.Handler) model.Backend {
	h.t.Helper()
	s := httptest.NewUnstartedServer(handler)
	if protocol == model.HTTP2 {
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
	}
	s.Start()
	h.t.Cleanup(s.Close)
	return h.backendAt(name, protocol, s.Listener.Addr().String())
}

func (h *harness) backendAt(name string, protocol model.Protocol, addresses ...string) model.Backend {
	id := model.BackendID{Namespace: "ns", Service: name, Port: 80, Protocol: protocol}
	h.config.Backends[id] = model.BackendSpec{}
	h.server.SetEndpoints(upstream.Service{Namespace: "ns", Name: name, Port: 80}, addresses)
	return model.Backend{ID: id, Weight: 1}
}

// match is a rule for all requests with a path prefix.
func match(hostname, prefix string, r *model.Rule) routing.Rule[model.Action] {
	r.Route = "HTTPRoute/ns/test"
	return routing.Rule[model.Action]{
		Hostname: hostname, Match: routing.Match{PathType: routing.Prefix, Path: prefix},
		Action: model.Action{Rule: r, Prefix: strings.TrimSuffix(prefix, "/")},
	}
}

// apply makes the rules those of both ports.
func (h *harness) apply(rules ...routing.Rule[model.Action]) {
	h.t.Helper()
	listeners := []model.Listener{{Rules: rules, Certificates: []*tls.Certificate{h.cert}}}
	h.config.Ports = []model.Port{
		{Target: h.plain, Number: 80, Gateway: "ns/gw", Listeners: listeners},
		{Target: h.secure, Number: 443, Gateway: "ns/gw", TLS: true, Listeners: listeners},
	}
	h.applyConfig(h.config)
}

func (h *harness) applyConfig(c model.Config) {
	h.t.Helper()
	if err := h.server.Apply(&c); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) url(path string) string { return fmt.Sprintf("http://127.0.0.1:%d%s", h.plain, path) }

// client returns a client that sends every host name to the ports.
func (h *harness) client(protocol string) *http.Client {
	var protocols http.Protocols
	port := h.plain
	switch protocol {
	case "http/1.1":
		protocols.SetHTTP1(true)
	case "h2c":
		protocols.SetUnencryptedHTTP2(true)
	case "https/1.1":
		protocols.SetHTTP1(true)
		port = h.secure
	case "h2":
		protocols.SetHTTP2(true)
		port = h.secure
	}
	transport := &http.Transport{
		Protocols: &protocols, TLSClientConfig: &tls.Config{RootCAs: h.roots},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		},
	}
	h.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// raw sends bytes over a new plain connection and returns a reader of what
// comes back.
func (h *harness) raw(data string) (net.Conn, *bufio.Reader) {
	h.t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", h.plain))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, data); err != nil {
		h.t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// read reads a response, which must have the given status, and returns its
// body.
func read(t testing.TB, resp *http.Response, err error, status int) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("status %d, body: %v", resp.StatusCode, err)
	}
	if resp.StatusCode != status {
		t.Fatalf("got status %d, want %d: %s", resp.StatusCode, status, body)
	}
	return string(body)
}

// echo answers with what it was sent.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("X-Backend", "echo")
	w.Header().Set("X-Host", r.Host)
	w.Header().Set("X-Uri", r.RequestURI)
	for name, values := range r.Header {
		w.Header()["Seen-"+name] = values
	}
	_, _ = w.Write(body)
})

var protocols = []string{"http/1.1", "https/1.1", "h2c", "h2"}

func TestForwarding(t *testing.T) {
	for _, backendProtocol := range []model.Protocol{model.HTTP1, model.HTTP2} {
		for _, protocol := range protocols {
			t.Run(fmt.Sprintf("%s to backend protocol %d", protocol, backendProtocol), func(t *testing.T) {
				h := start(t, nil)
				h.apply(match("", "/", &model.Rule{Backends: []model.Backend{h.backend("echo", backendProtocol, echo)}}))
				client := h.client(protocol)
				scheme := "http"
				if strings.HasPrefix(protocol, "h2") && protocol != "h2c" || protocol == "https/1.1" {
					scheme = "https"
				}
				for _, size := range []int{0, 1, 1 << 10, 100 << 10, 3 << 20} {
					for _, known := range []bool{true, false} {
						want := strings.Repeat("x", size)
						var body io.Reader = strings.NewReader(want)
						if !known {
							body = io.MultiReader(body)
						}
						req, err := http.NewRequest("POST", scheme+"://a.example/p/%2Fq?x=1&y", body)
						if err != nil {
							t.Fatal(err)
						}
						req.Header.Set("X-Forwarded-For", "6.6.6.6")
						req.Header.Set("X-Forwarded-Proto", "gopher")
						req.Header.Set("Connection", "X-Hop")
						req.Header.Set("X-Hop", "secret")
						if strings.HasPrefix(protocol, "h2") {
							req.Header.Del("Connection")
							req.Header.Del("X-Hop")
						}
						resp, err := client.Do(req)
						if got := read(t, resp, err, 200); got != want {
							t.Fatalf("size %d, known %v: got %d bytes", size, known, len(got))
						}
						for name, want := range map[string]string{
							"X-Host": "a.example", "X-Uri": "/p/%2Fq?x=1&y", "Seen-X-Forwarded-For": "127.0.0.1",
							"Seen-X-Forwarded-Proto": scheme, "Seen-X-Forwarded-Host": "a.example", "Seen-X-Hop": "",
						} {
							if got := strings.Join(resp.Header.Values(name), "|"); got != want {
								t.Errorf("%s: got %q, want %q", name, got, want)
							}
						}
					}
				}
				resp, err := client.Head(scheme + "://a.example/")
				read(t, resp, err, 200)
			})
		}
	}
}

func TestOwnAnswers(t *testing.T) {
	h := start(t, nil)
	broken := model.Backend{Weight: 1, Problem: "Service ns/x does not exist"}
	none := h.backendAt("none", model.HTTP1)
	refusing := h.backendAt("refusing", model.HTTP1, fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	rude := h.backend("rude", model.HTTP1, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, _ := http.NewResponseController(w).Hijack()
		_, _ = io.WriteString(conn, "220 smtp.example ESMTP\r\n\r\n")
		conn.Close()
	}))
	mute := h.backend("mute", model.HTTP1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	h.apply(
		match("a.example", "/broken", &model.Rule{Backends: []model.Backend{broken}}),
		match("a.example", "/none", &model.Rule{Backends: []model.Backend{none}}),
		match("a.example", "/refusing", &model.Rule{Backends: []model.Backend{refusing}}),
		match("a.example", "/rude", &model.Rule{Backends: []model.Backend{rude}}),
		match("a.example", "/mute", &model.Rule{BackendTimeout: 50 * time.Millisecond, Backends: []model.Backend{mute}}),
		match("a.example", "/empty", &model.Rule{}),
		match("a.example", "/echo", &model.Rule{Backends: []model.Backend{h.backend("echo", model.HTTP1, echo)}}),
	)
	tests := []struct {
		url    string
		status int
		text   string
	}{
		{"http://b.example/", 404, `no route for host "b.example"`},
		{"http://a.example/other", 404, `no rule`},
		{"http://a.example/broken", 500, "ns/x does not exist"},
		{"http://a.example/empty", 500, "names no backend"},
		{"http://a.example/none", 503, "ns/none:80 has no ready endpoint"},
		{"http://a.example/refusing", 502, "cannot be reached"},
		{"http://a.example/rude", 502, "did not answer in HTTP/1.1"},
		{"http://a.example/mute", 504, "took too long"},
	}
	for _, protocol := range []string{"http/1.1", "h2c"} {
		client := h.client(protocol)
		for _, tc := range tests {
			resp, err := client.Get(tc.url)
			if got := read(t, resp, err, tc.status); !strings.Contains(got, tc.text) {
				t.Errorf("%s: got %q", tc.url, got)
			}
		}
		resp, err := client.Post("http://a.example/echo", "", io.MultiReader(strings.NewReader(strings.Repeat("x", 9<<20))))
		if err == nil { // a client may see its connection closed first
			read(t, resp, nil, 413)
		}
	}

	raw := []struct {
		name, in string
		status   int
	}{
		{"malformed", "GET / HTTP/1.1\r\nHost: a.example\r\nBad Name: x\r\n\r\n", 400},
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"smuggling", "POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"large head", "GET / HTTP/1.1\r\nHost: a.example\r\nX: " + strings.Repeat("x", 20<<10) + "\r\n\r\n", 431},
		{"slow head", "GET / HTTP/1.1\r\nHost: a.exa", 408},
		{"slow body", "POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\r\nab", 408},
		{"malformed chunk", "POST /echo HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
		{"large body", "POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 99999999\r\n\r\n", 413},
		{"proxy", "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", 405},
		{"version", "GET / HTTP/3.0\r\nHost: a.example\r\n\r\n", 505},
		{"coding", "POST /echo HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
	}
	for _, tc := range raw {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, in := h.raw(tc.in)
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tc.status || !resp.Close {
				t.Errorf("got %d, closing %v; want %d, closing", resp.StatusCode, resp.Close, tc.status)
			}
		})
	}
}

func TestFilters(t *testing.T) {
	h := start(t, nil)
	echoBackend := h.backend("echo", model.HTTP1, echo)
	field := func(name, value string) []http1.Field { return []http1.Field{{Name: name, Value: value}} }
	h.apply(
		match("", "/headers", &model.Rule{Filters: model.Filters{
			RequestHeaders:  &model.HeaderEdit{Remove: []string{"x-gone"}, Set: field("X-Set", "set"), Add: field("X-Add", "added")},
			ResponseHeaders: &model.HeaderEdit{Remove: []string{"X-Backend"}, Set: field("X-Resp", "1")},
		}, Backends: []model.Backend{echoBackend}}),
		match("", "/prefix", &model.Rule{Filters: model.Filters{Rewrite: &model.Rewrite{Hostname: "other.example", Path: &model.PathEdit{Prefix: "/new"}}}, Backends: []model.Backend{echoBackend}}),
		match("", "/full", &model.Rule{Filters: model.Filters{Rewrite: &model.Rewrite{Path: &model.PathEdit{Full: "/whole"}}}, Backends: []model.Backend{echoBackend}}),
		match("", "/strip", &model.Rule{Filters: model.Filters{Rewrite: &model.Rewrite{Path: &model.PathEdit{Prefix: "/"}}}, Backends: []model.Backend{echoBackend}}),
		match("", "/to-https", &model.Rule{Filters: model.Filters{Redirect: &model.Redirect{Scheme: "https", Status: 301}}}),
		match("", "/to-host", &model.Rule{Filters: model.Filters{Redirect: &model.Redirect{Hostname: "x.example", Status: 302}}}),
		match("", "/to-port", &model.Rule{Filters: model.Filters{Redirect: &model.Redirect{Port: 8080, Status: 307}}}),
		match("", "/to-path", &model.Rule{Filters: model.Filters{Redirect: &model.Redirect{Path: &model.PathEdit{Prefix: "/there"}, Status: 308}}}),
		match("", "/cors", &model.Rule{Filters: model.Filters{CORS: &model.CORS{
			Origins: []string{"https://a.example", "https://*.b.example"}, Methods: []string{"GET", "PUT"}, Headers: []string{"*"}, Credentials: true, MaxAge: 60,
		}}, Backends: []model.Backend{echoBackend}}),
	)
	client := h.client("http/1.1")
	get := func(method, url string, header map[string]string) *http.Response {
		t.Helper()
		req, err := http.NewRequest(method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range header {
			req.Header.Set(name, value)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp
	}
	tests := []struct {
		name, method, url string
		send, want        map[string]string
		status            int
	}{
		{name: "edit", url: "http://c.example/headers", send: map[string]string{"X-Gone": "1", "X-Set": "old", "X-Add": "given"}, status: 200,
			want: map[string]string{"Seen-X-Gone": "", "Seen-X-Set": "set", "Seen-X-Add": "given|added", "X-Backend": "", "X-Resp": "1"}},
		{name: "prefix", url: "http://c.example/prefix/a/%2e%2e/b?q=1", status: 200, want: map[string]string{"X-Uri": "/new/b?q=1", "X-Host": "other.example", "Seen-X-Forwarded-Host": "c.example"}},
		{name: "prefix alone", url: "http://c.example/prefix", status: 200, want: map[string]string{"X-Uri": "/new"}},
		{name: "full", url: "http://c.example/full/a?q", status: 200, want: map[string]string{"X-Uri": "/whole?q"}},
		{name: "strip", url: "http://c.example/strip/a", status: 200, want: map[string]string{"X-Uri": "/a"}},
		{name: "strip all", url: "http://c.example/strip", status: 200, want: map[string]string{"X-Uri": "/"}},
		{name: "to https", url: "http://c.example/to-https/a?q=1", status: 301, want: map[string]string{"Location": "https://c.example/to-https/a?q=1"}},
		{name: "to host", url: "http://c.example/to-host", status: 302, want: map[string]string{"Location": "http://x.example/to-host"}},
		{name: "to port", url: "http://c.example/to-port", status: 307, want: map[string]string{"Location": "http://c.example:8080/to-port"}},
		{name: "to path", url: "http://c.example/to-path/x", status: 308, want: map[string]string{"Location": "http://c.example/there/x"}},
		{name: "preflight", method: "OPTIONS", url: "http://c.example/cors", status: 204,
			send: map[string]string{"Origin": "https://x.y.b.example", "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "x-one"},
			want: map[string]string{"Access-Control-Allow-Origin": "https://x.y.b.example", "Access-Control-Allow-Methods": "GET, PUT", "Access-Control-Allow-Headers": "x-one", "Access-Control-Max-Age": "60", "Access-Control-Allow-Credentials": "true"}},
		{name: "preflight refused", method: "OPTIONS", url: "http://c.example/cors", status: 204,
			send: map[string]string{"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}, want: map[string]string{"Access-Control-Allow-Origin": "", "Access-Control-Allow-Methods": ""}},
		{name: "simple", url: "http://c.example/cors", status: 200, send: map[string]string{"Origin": "https://a.example"}, want: map[string]string{"Access-Control-Allow-Origin": "https://a.example"}},
		{name: "simple refused", url: "http://c.example/cors", status: 200, send: map[string]string{"Origin": "https://b.example"}, want: map[string]string{"Access-Control-Allow-Origin": ""}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if tc.method == "" {
				tc.method = "GET"
			}
			resp := get(tc.method, tc.url, tc.send)
			if resp.StatusCode != tc.status {
				t.Errorf("got status %d, want %d", resp.StatusCode, tc.status)
			}
			for name, want := range tc.want {
				if got := strings.Join(resp.Header.Values(name), "|"); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
		})
	}
}
