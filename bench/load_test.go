package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// startBackend serves until the test ends and returns the address.
func startBackend(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- serveBackend(ctx, address) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	wait, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := poll(wait, 5*time.Millisecond, func() bool {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return address
}

// TestBackend sends requests in every way they can be cut.
func TestBackend(t *testing.T) {
	conn, err := net.Dial("tcp", startBackend(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for cut := range len(request) {
		// One whole request, and one in two pieces around it.
		for _, piece := range []string{request[:cut], request[cut:] + request} {
			if _, err := conn.Write([]byte(piece)); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || len(body) != 1024 {
				t.Fatalf("cut at %d: %d bytes, %v", cut, len(body), err)
			}
		}
	}
}

// ask runs a short load.
func ask(t *testing.T, l load) (outcome, error) {
	t.Helper()
	l.Routes, l.Threads, l.Duration = 3, 2, 200*time.Millisecond
	raw, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := runLoad(string(raw), &out); err != nil {
		return outcome{}, err
	}
	var o outcome
	return o, json.Unmarshal(out.Bytes(), &o)
}

func TestLoad(t *testing.T) {
	o, err := ask(t, load{Address: startBackend(t), Connections: 4})
	if err != nil || o.Requests < 4 || o.P50 <= 0 || o.P99 < o.P50 || o.Seconds < 0.2 {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestLoadOverTLS has responses in several records, some of which have not come
// yet when the first is read.
func TestLoadOverTLS(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "8")
		for _, part := range []string{"half", "half"} {
			io.WriteString(w, part)
			w.(http.Flusher).Flush()
		}
	}))
	defer server.Close()
	o, err := ask(t, load{Address: server.Listener.Addr().String(), TLS: true, Connections: 4})
	if err != nil || o.Requests < 4 {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestLoadRefuses counts nothing that is not what was asked for.
func TestLoadRefuses(t *testing.T) {
	answers := map[string]string{
		"an error":             "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
		"no length":            "HTTP/1.1 200 OK\r\n\r\n",
		"more than was said":   "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
		"a connection's end":   "",
		"an unreadable length": "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
						fmt.Fprint(conn, answer)
					}
					conn.Close()
				}
			}()
			if o, err := ask(t, load{Address: l.Addr().String(), Connections: 2}); err == nil {
				t.Errorf("counted %+v", o)
			}
		})
	}
}

// TestRequests wants every route once, in an order that is not the routes'.
func TestRequests(t *testing.T) {
	all := requests(1000, 0)
	seen := map[string]bool{}
	inOrder := 0
	for i, r := range all {
		seen[string(r)] = true
		if strings.Contains(string(r), fmt.Sprintf("Host: app-%d.", i/2)) {
			inOrder++
		}
	}
	if len(seen) != 2000 || inOrder > 100 {
		t.Errorf("%d different requests, %d of them at their route's place", len(seen), inOrder)
	}
}
