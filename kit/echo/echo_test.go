package echo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// start returns the address of a running server.
func start(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, "one") }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

func TestHTTP(t *testing.T) {
	address := start(t)
	for _, h2 := range []bool{false, true} {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(!h2)
		protocols.SetUnencryptedHTTP2(h2)
		transport := &http.Transport{Protocols: protocols}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport}).Post("http://"+address+"/a/b?c=d&status=418", "text/plain", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var a Answer
		if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 418 || a.Name != "one" || a.Method != "POST" || a.Path != "/a/b" || a.Query != "c=d&status=418" || a.Length != 5 || (a.Proto == "HTTP/2.0") != h2 {
			t.Errorf("h2 %v: got %d, %+v", h2, resp.StatusCode, a)
		}
	}
}

func TestGRPC(t *testing.T) {
	address := start(t)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	message := []byte{0, 0, 0, 0, 3, 'a', 'b', 'c'}
	resp, err := (&http.Client{Transport: transport}).Post("http://"+address+"/any.Service/Method", "application/grpc", bytes.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(body, message) || resp.Trailer.Get("Grpc-Status") != "0" || resp.Header.Get("Echo-Name") != "one" {
		t.Errorf("got %q, %v, trailers %v", body, err, resp.Trailer)
	}
}

func TestWebSocket(t *testing.T) {
	conn, err := net.Dial("tcp", start(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	// The key and its answer are those of RFC 6455, section 1.3.
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("got %d, %v", resp.StatusCode, resp.Header)
	}
	for _, size := range []int{0, 5, 200, 70000} {
		payload := bytes.Repeat([]byte("x"), size)
		var frame bytes.Buffer
		w := bufio.NewWriter(&frame)
		if err := writeFrame(w, 0x81, payload); err != nil {
			t.Fatal(err)
		}
		out := frame.Bytes()
		head := len(out) - size
		masked := append(append(append([]byte{}, out[:head]...), 0, 0, 0, 0), out[head:]...)
		masked[1] |= 0x80
		if _, err := conn.Write(masked); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(out))
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, out) {
			t.Fatalf("size %d: got %d bytes, %v", size, len(got), err)
		}
	}
}
