package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/routing"
)

func rules(r ...routing.Rule[model.Action]) []routing.Rule[model.Action] { return r }

// Events reach the client one by one, as they are sent.
func TestStreaming(t *testing.T) {
	for _, protocol := range []string{"http/1.1", "h2c"} {
		for _, backend := range []model.Protocol{model.HTTP1, model.HTTP2} {
			t.Run(fmt.Sprintf("%s to backend protocol %d", protocol, backend), func(t *testing.T) {
				h := start(t, nil)
				next := make(chan string)
				b := h.backend("events", backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.WriteHeader(200)
					_ = http.NewResponseController(w).Flush()
					for event := range next {
						_, _ = io.WriteString(w, event)
						_ = http.NewResponseController(w).Flush()
					}
				}))
				h.apply(match("", "/", &model.Rule{Backends: []model.Backend{b}}))
				resp, err := h.client(protocol).Get("http://a.example/")
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				for i := range 5 {
					event := fmt.Sprintf("event %d\n", i)
					next <- event
					got := make([]byte, len(event))
					if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != event {
						t.Fatalf("got %q, %v", got, err)
					}
				}
				close(next)
				if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
					t.Errorf("the end: got %q, %v", rest, err)
				}
			})
		}
	}
}

// A gRPC call streams both ways and ends in trailers.
func TestGRPC(t *testing.T) {
	for _, protocol := range []string{"h2c", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			h := start(t, nil)
			b := h.backend("grpc", model.HTTP2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Te") != "trailers" {
					t.Errorf("te: %q", r.Header.Get("Te"))
				}
				w.Header().Set("Content-Type", "application/grpc")
				_ = http.NewResponseController(w).Flush()
				buf := make([]byte, 100)
				for {
					n, err := r.Body.Read(buf)
					_, _ = w.Write(buf[:n])
					_ = http.NewResponseController(w).Flush()
					if err != nil {
						break
					}
				}
				w.Header().Set(http.TrailerPrefix+"Grpc-Status", "7")
			}))
			h.apply(match("", "/", &model.Rule{Backends: []model.Backend{b}}))
			in, out := io.Pipe()
			url := "http://a.example/svc/Method"
			if protocol == "h2" {
				url = "https://a.example/svc/Method"
			}
			req, err := http.NewRequest("POST", url, in)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/grpc")
			req.Header.Set("Te", "trailers")
			resp, err := h.client(protocol).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			for range 3 {
				if _, err := io.WriteString(out, "ping"); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, 4)
				if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != "ping" {
					t.Fatalf("got %q, %v", got, err)
				}
			}
			out.Close()
			if _, err := io.ReadAll(resp.Body); err != nil {
				t.Fatal(err)
			}
			if got := resp.Trailer.Get("Grpc-Status"); got != "7" {
				t.Errorf("grpc-status %q", got)
			}
		})
	}
}

func TestTunnel(t *testing.T) {
	h := start(t, nil)
	b := h.backend("upper", model.HTTP1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "shout" {
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\nHELLO\n")
		_ = rw.Flush()
		for {
			line, err := rw.ReadString('\n')
			fmt.Fprint(rw, strings.ToUpper(line))
			_ = rw.Flush()
			if err != nil {
				return
			}
		}
	}))
	h.apply(match("", "/", &model.Rule{Backends: []model.Backend{b}}))
	// The first line is sent before the answer to the upgrade.
	conn, in := h.raw("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\nfirst\n")
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "shout" {
		t.Fatalf("got %v, %v", resp, err)
	}
	for _, want := range []string{"HELLO\n", "FIRST\n"} {
		if got, err := in.ReadString('\n'); got != want || err != nil {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
	if _, err := io.WriteString(conn, "second\nlast"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(in); string(rest) != "SECOND\nLAST" || err != nil {
		t.Errorf("got %q, %v", rest, err)
	}
}

// A client that hangs up while it waits ends the request at the backend.
func TestClientHangsUp(t *testing.T) {
	for _, protocol := range []string{"http/1.1", "h2c"} {
		t.Run(protocol, func(t *testing.T) {
			h := start(t, nil)
			arrived, ended := make(chan struct{}), make(chan struct{})
			b := h.backend("mute", model.HTTP1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(arrived)
				<-r.Context().Done()
				close(ended)
			}))
			h.apply(match("", "/", &model.Rule{Backends: []model.Backend{b}}))
			client := h.client(protocol)
			client.Timeout = 300 * time.Millisecond
			go func() { _, _ = client.Get("http://a.example/") }()
			<-arrived
			select {
			case <-ended:
			case <-time.After(4 * time.Second):
				t.Error("the backend still works for a client that is gone")
			}
		})
	}
}

// A request that may be repeated is, when its endpoint breaks off; another is
// not.
func TestRetries(t *testing.T) {
	h := start(t, nil)
	var calls atomic.Int32
	breaking, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer breaking.Close()
	go func() {
		for {
			conn, err := breaking.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			_, _ = bufio.NewReader(conn).ReadString('\n')
			conn.Close()
		}
	}()
	good := h.backend("good", model.HTTP1, named("good"))
	_ = good
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: named("good")}
	go func() { _ = s.Serve(server) }()
	defer s.Close()
	for range 6 {
		b := h.backendAt("mixed", model.HTTP1, breaking.Addr().String(), server.Addr().String())
		h.apply(match("", "/", &model.Rule{Backends: []model.Backend{b}}))
		resp, err := h.client("http/1.1").Get("http://a.example/")
		if got := read(t, resp, err, 200); got != "good" {
			t.Fatalf("got %q", got)
		}
	}
	only := h.backendAt("breaking", model.HTTP1, breaking.Addr().String())
	h.apply(match("", "/", &model.Rule{Backends: []model.Backend{only}}))
	calls.Store(0)
	resp, err := h.client("http/1.1").Post("http://a.example/", "", strings.NewReader("x"))
	read(t, resp, err, 502)
	if n := calls.Load(); n != 1 {
		t.Errorf("a POST was sent %d times", n)
	}
}

func TestMirror(t *testing.T) {
	h := start(t, nil)
	copies := make(chan string, 10)
	main := h.backend("main", model.HTTP1, echo)
	shadow := h.backend("shadow", model.HTTP1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		copies <- r.Host + r.RequestURI + " " + r.Header.Get("X-Set") + " " + string(body)
	}))
	h.apply(match("", "/", &model.Rule{
		Filters: model.Filters{
			RequestHeaders: &model.HeaderEdit{Set: []http1.Field{{Name: "X-Set", Value: "1"}}},
			Mirrors:        []model.Mirror{{ID: shadow.ID, Numerator: 1, Denominator: 1}},
		},
		Backends: []model.Backend{main},
	}))
	for _, protocol := range []string{"http/1.1", "h2c"} {
		resp, err := h.client(protocol).Post("http://a.example/p?q", "", bytes.NewReader([]byte("body")))
		if got := read(t, resp, err, 200); got != "body" {
			t.Errorf("got %q", got)
		}
		select {
		case got := <-copies:
			if got != "a.example/p?q 1 body" {
				t.Errorf("the copy: %q", got)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("no copy came")
		}
	}
}
