package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/upstream"
)

// load sends requests with several clients, each of which has an answer when it
// returns, until stop is called, which returns how many there were and the
// first that failed.
func load(send func(client int) error) (stop func() (int64, error)) {
	var n atomic.Int64
	var first error
	var once sync.Once
	var group, begun sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for i := range 4 {
		begun.Add(1)
		group.Go(func() {
			begin := sync.OnceFunc(begun.Done)
			defer begin()
			for ctx.Err() == nil {
				if err := send(i); err != nil {
					once.Do(func() { first = err })
					return
				}
				n.Add(1)
				begin()
			}
		})
	}
	begun.Wait()
	return func() (int64, error) {
		cancel()
		group.Wait()
		return n.Load(), first
	}
}

// get sends a GET that must succeed.
func get(client *http.Client, url string) (string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	return string(body), err
}

// named answers with a name.
func named(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })
}

func TestConfigurationChangesUnderLoad(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			h := start(t, nil)
			one, two := h.backend("one", model.HTTP1, named("one")), h.backend("two", model.HTTP1, named("two"))
			h.apply(match("", "/", &model.Rule{Backends: []model.Backend{one}}))
			url := "http://a.example/"
			if protocol == "h2" || protocol == "https/1.1" {
				url = "https://a.example/"
			}
			clients := []*http.Client{h.client(protocol), h.client(protocol), h.client(protocol), h.client(protocol)}
			stop := load(func(i int) error { _, err := get(clients[i], url); return err })
			probe := h.client(protocol)
			for i := range 20 {
				b, want := two, "two"
				if i%2 == 1 {
					b, want = one, "one"
				}
				// Other listeners come and go meanwhile.
				h.apply(match("", "/", &model.Rule{Backends: []model.Backend{b}}))
				extra := h.config
				extra.Ports = append([]model.Port{{Target: freePort(t), Number: 81, Gateway: "ns/other"}}, h.config.Ports...)
				h.applyConfig(extra)
				if got, err := get(probe, url); got != want || err != nil {
					t.Fatalf("after change %d: got %q, %v; want %q", i, got, err, want)
				}
			}
			if n, err := stop(); err != nil || n == 0 {
				t.Errorf("of %d requests one failed: %v", n, err)
			}
		})
	}
}

// Backends are replaced one by one, as a rolling update does: a new one
// appears, an old one is told to go, which closes its idle connections, and
// vanishes from the endpoints a moment too late.
func TestRollingUpdateOfABackend(t *testing.T) {
	h := start(t, nil)
	newServer := func() *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n)
		}))
		return s
	}
	old, other := newServer(), newServer()
	service := upstream.Service{Namespace: "ns", Name: "app", Port: 80}
	address := func(s *httptest.Server) string { return s.Listener.Addr().String() }
	b := h.backendAt("app", model.HTTP1, address(old), address(other))
	h.apply(match("", "/", &model.Rule{Backends: []model.Backend{b}}))
	clients := []*http.Client{h.client("http/1.1"), h.client("http/1.1"), h.client("http/1.1"), h.client("h2c")}
	stop := load(func(i int) error { _, err := get(clients[i], "http://a.example/"); return err })
	for range 10 {
		next := newServer()
		h.server.SetEndpoints(service, []string{address(other), address(next), address(old)})
		// Shutdown is what a well-behaved server does at SIGTERM.
		if err := old.Config.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		h.server.SetEndpoints(service, []string{address(other), address(next)})
		old, other = other, next
	}
	n, err := stop()
	if err != nil || n == 0 {
		t.Errorf("of %d requests one failed: %v", n, err)
	}
	old.Close()
	other.Close()
}

func TestDrain(t *testing.T) {
	h := start(t, func(o *Options) { o.DrainDelay = 100 * time.Millisecond })
	release := make(chan struct{})
	b := h.backend("slow", model.HTTP1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
		}
		_, _ = io.WriteString(w, "done")
	}))
	h.apply(match("", "/", &model.Rule{Backends: []model.Backend{b}}))
	slow := make(chan error, 2)
	for _, protocol := range []string{"http/1.1", "h2c"} {
		client := h.client(protocol)
		if _, err := get(client, "http://a.example/"); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := get(client, "http://a.example/slow")
			slow <- err
		}()
	}
	idle, _ := h.raw("")
	stopped := make(chan struct{})
	go func() { h.stop(); close(stopped) }()
	// While it drains, it still serves, and asks to be left.
	deadline := time.Now().Add(5 * time.Second)
	for {
		resp, err := h.client("http/1.1").Get("http://a.example/")
		if err != nil {
			t.Fatalf("a request during the delay failed: %v", err)
		}
		read(t, resp, nil, 200)
		if resp.Close {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("responses do not ask the client to leave")
		}
	}
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection: got %v, want its end", err)
	}
	close(release)
	for range 2 {
		if err := <-slow; err != nil {
			t.Errorf("a request in flight failed: %v", err)
		}
	}
	<-stopped
	if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", h.plain)); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
}

// The last replica goes on accepting while connections come, since nobody else
// would take them, but not for ever.
func TestDrainWithoutASuccessor(t *testing.T) {
	for name, tc := range map[string]struct{ quiet, max time.Duration }{
		"until it is quiet":   {400 * time.Millisecond, time.Minute},
		"at most the maximum": {time.Minute, 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t, func(o *Options) { o.DrainDelay, o.DrainQuiet, o.DrainMax = 10*time.Millisecond, tc.quiet, tc.max })
			b := h.backend("one", model.HTTP1, named("one"))
			h.apply(match("", "/", &model.Rule{Backends: []model.Backend{b}}))
			began := time.Now()
			stopped := make(chan time.Time, 1)
			go func() { h.stop(); stopped <- time.Now() }()
			asked := began
			for time.Since(began) < 300*time.Millisecond {
				asked = time.Now()
				client := h.client("http/1.1")
				if _, err := get(client, "http://a.example/"); err != nil {
					t.Fatalf("after %s: %v", time.Since(began), err)
				}
				client.CloseIdleConnections()
			}
			end := <-stopped
			if end.Sub(began) < min(asked.Sub(began)+tc.quiet, tc.max) {
				t.Errorf("it went on for %s only, %s after the last request", end.Sub(began), end.Sub(asked))
			}
			if end.Sub(began) > 30*time.Second {
				t.Errorf("it went on for %s", end.Sub(began))
			}
		})
	}
}

func TestCertificates(t *testing.T) {
	h := start(t, nil)
	b := h.backend("one", model.HTTP1, named("one"))
	r := match("", "/", &model.Rule{Backends: []model.Backend{b}})
	first, _ := selfSigned(t, "a.example")
	second, _ := selfSigned(t, "a.example")
	other, _ := selfSigned(t, "*.b.example")
	serve := func(a *tls.Certificate) {
		onA, onB := r, r
		onA.Hostname, onB.Hostname = "a.example", "*.b.example"
		h.config.Ports = []model.Port{{Target: h.secure, Number: 443, Gateway: "ns/gw", TLS: true, Listeners: []model.Listener{
			{Hostname: "a.example", Rules: rules(onA), Certificates: []*tls.Certificate{a}},
			{Hostname: "*.b.example", Rules: rules(onB), Certificates: []*tls.Certificate{other}},
		}}}
		h.applyConfig(h.config)
	}
	serve(first)
	dial := func(name string) (*tls.Conn, error) {
		return tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", h.secure), &tls.Config{ServerName: name, InsecureSkipVerify: true})
	}
	presented := func(name string) string {
		t.Helper()
		conn, err := dial(name)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	if got := presented("a.example"); got != first.Leaf.SerialNumber.String() {
		t.Errorf("a.example got certificate %s", got)
	}
	if got := presented("x.y.b.example"); got != other.Leaf.SerialNumber.String() {
		t.Errorf("x.y.b.example got certificate %s", got)
	}
	for _, name := range []string{"c.example", "b.example", ""} {
		if conn, err := dial(name); err == nil {
			conn.Close()
			t.Errorf("server name %q is served", name)
		}
	}
	// An open connection outlives the renewal, new ones see it.
	old, err := dial("a.example")
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	serve(second)
	if got := presented("a.example"); got != second.Leaf.SerialNumber.String() {
		t.Errorf("after the renewal a.example got certificate %s", got)
	}
	if _, err := io.WriteString(old, "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(old); err != nil || !strings.HasSuffix(string(answer), "one") {
		t.Errorf("the open connection: got %q, %v", answer, err)
	}
	// A request for the other listener's host is misdirected.
	conn, err := dial("a.example")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x.b.example\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, _ := io.ReadAll(conn); !strings.HasPrefix(string(answer), "HTTP/1.1 421 ") {
		t.Errorf("misdirected: got %q", answer)
	}
}
