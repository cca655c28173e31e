// Package echo is a small server that says what it was asked: the backend of
// proofs, tests and demonstrations, so that they need no image but the
// platform's own.
//
// It answers HTTP/1.1 and HTTP/2 with prior knowledge on one port: GET and
// every other method with a JSON [Answer], a WebSocket with every message sent
// back, and any gRPC method with the call's own message. It promises to answer
// 200 to whatever it understands, and to end politely: requests in flight are
// finished.
//
// It refuses everything a real server needs: it keeps nothing, and trusts
// nobody.
package echo

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Answer is what the server says of a request.
type Answer struct {
	// Name is the server's own, such as the pod's.
	Name   string      `json:"name"`
	Proto  string      `json:"proto"`
	Method string      `json:"method"`
	Host   string      `json:"host"`
	Path   string      `json:"path"`
	Query  string      `json:"query,omitempty"`
	Header http.Header `json:"header"`
	// Length is the number of bytes of the request's body.
	Length int64 `json:"length"`
}

// Serve answers on l until ctx ends, and then finishes the requests in flight,
// for 30 seconds at most. It closes l.
//
// A request may ask for a status with the query parameter "status", and for a
// delay with "delay", such as 500ms.
func Serve(ctx context.Context, l net.Listener, name string) error {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: handler(name), Protocols: &protocols, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if err := server.Shutdown(ending); err != nil {
		return fmt.Errorf("finish the last requests: %w", err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

func handler(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
			serveGRPC(w, r, name)
		case strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
			serveWebSocket(w, r)
		default:
			serveHTTP(w, r, name)
		}
	})
}

func serveHTTP(w http.ResponseWriter, r *http.Request, name string) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, "read the body: "+err.Error(), http.StatusBadRequest)
		return
	}
	if d, err := time.ParseDuration(r.URL.Query().Get("delay")); err == nil {
		t := time.NewTimer(min(d, time.Minute))
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
			return
		}
	}
	status, err := strconv.Atoi(r.URL.Query().Get("status"))
	if err != nil || status < 200 || status > 599 {
		status = http.StatusOK
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The client may be gone; there is nobody to tell.
	_ = json.NewEncoder(w).Encode(Answer{
		Name: name, Proto: r.Proto, Method: r.Method, Host: r.Host, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, Header: r.Header, Length: n,
	})
}

// serveGRPC answers a call of any method with its own messages: they need no
// schema to be sent back. The server's name is in the header "echo-name".
func serveGRPC(w http.ResponseWriter, r *http.Request, name string) {
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	w.Header().Set("Echo-Name", name)
	w.WriteHeader(http.StatusOK)
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
			if f, ok := w.(http.Flusher); ok {
				f.Flush()
			}
		}
		if err != nil {
			break
		}
	}
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
}

// serveWebSocket sends every message back (RFC 6455): frames are returned as
// they came, unmasked.
func serveWebSocket(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this connection cannot become a WebSocket", http.StatusBadRequest)
		return
	}
	defer conn.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	if rw.Flush() != nil {
		return
	}
	for {
		opcode, payload, err := readFrame(rw.Reader)
		if err != nil {
			return
		}
		if opcode&0x0f == opPing {
			opcode = opcode&0xf0 | opPong
		}
		if writeFrame(rw.Writer, opcode, payload) != nil || opcode&0x0f == opClose {
			return
		}
	}
}

// Opcodes of frames (RFC 6455 §5.2).
const (
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xa
)

// maxFrame bounds what a frame may make the server keep.
const maxFrame = 1 << 20

// errFrame is a frame that this server does not take.
var errFrame = errors.New("frame too large or not masked")

// readFrame reads one frame of a client. The opcode comes with its flags.
func readFrame(r *bufio.Reader) (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	length := uint64(head[1] & 0x7f)
	more := map[uint64]int{126: 2, 127: 8}[length]
	if more > 0 {
		var b [8]byte
		if _, err := io.ReadFull(r, b[8-more:]); err != nil {
			return 0, nil, err
		}
		length = 0
		for _, v := range b {
			length = length<<8 | uint64(v)
		}
	}
	if length > maxFrame || head[1]&0x80 == 0 {
		return 0, nil, errFrame
	}
	var mask [4]byte
	if _, err := io.ReadFull(r, mask[:]); err != nil {
		return 0, nil, err
	}
	payload = make([]byte, length)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, err
	}
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0], payload, nil
}

// writeFrame writes one frame, unmasked as a server does.
func writeFrame(w *bufio.Writer, opcode byte, payload []byte) error {
	head := []byte{opcode}
	switch n := len(payload); {
	case n < 126:
		head = append(head, byte(n))
	case n < 1<<16:
		head = append(head, 126, byte(n>>8), byte(n))
	default:
		head = append(head, 127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	if _, err := w.Write(append(head, payload...)); err != nil {
		return err
	}
	return w.Flush()
}
