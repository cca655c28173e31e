package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRequest(t *testing.T) {
	type want struct {
		Method, Path, Query, Host, Upgrade string
		Length                             int64
		Close, Continue, Trailers          bool
	}
	tests := map[string]struct {
		reason string
		head   string
		want   want
		err    error
	}{
		"plain": {
			head: "GET /a/b?c=d HTTP/1.1\r\nHost: example.org:80\r\n\r\n",
			want: want{Method: "GET", Path: "/a/b", Query: "c=d", Host: "example.org:80"},
		},
		"absolute target": {
			reason: "RFC 9112 §3.2.2: the target's authority replaces the Host field",
			head:   "GET http://real.example/p?q HTTP/1.1\r\nHost: other\r\n\r\n",
			want:   want{Method: "GET", Path: "/p", Query: "q", Host: "real.example"},
		},
		"absolute target without path": {
			head: "GET http://real.example?q HTTP/1.1\r\nHost: other\r\n\r\n",
			want: want{Method: "GET", Path: "/", Query: "q", Host: "real.example"},
		},
		"asterisk":          {head: "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", want: want{Method: "OPTIONS", Path: "*", Host: "a"}},
		"asterisk for GET":  {head: "GET * HTTP/1.1\r\nHost: a\r\n\r\n", err: ErrMalformed},
		"1.0 without host":  {head: "GET / HTTP/1.0\r\n\r\n", want: want{Method: "GET", Path: "/", Close: true}},
		"1.0 kept alive":    {head: "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", want: want{Method: "GET", Path: "/"}},
		"close":             {head: "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", want: want{Method: "GET", Path: "/", Host: "a", Close: true}},
		"length":            {head: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n", want: want{Method: "POST", Path: "/", Host: "a", Length: 12}},
		"chunked":           {head: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", want: want{Method: "POST", Path: "/", Host: "a", Length: -1}},
		"expect":            {head: "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", want: want{Method: "PUT", Path: "/", Host: "a", Length: 1, Continue: true}},
		"upgrade":           {head: "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n", want: want{Method: "GET", Path: "/", Host: "a", Upgrade: "websocket"}},
		"upgrade unlisted":  {reason: "Upgrade without Connection: upgrade is not an offer", head: "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", want: want{Method: "GET", Path: "/", Host: "a"}},
		"trailers":          {head: "GET / HTTP/1.1\r\nHost: a\r\nTE: deflate, trailers;q=1\r\n\r\n", want: want{Method: "GET", Path: "/", Host: "a", Trailers: true}},
		"connect":           {head: "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", want: want{Method: "CONNECT", Host: "a:443"}},
		"address":           {head: "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", want: want{Method: "GET", Path: "/", Host: "[::1]:80"}},
		"no host":           {head: "GET / HTTP/1.1\r\n\r\n", err: ErrMalformed},
		"two hosts":         {head: "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", err: ErrMalformed},
		"user in host":      {head: "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", err: ErrMalformed},
		"bad port":          {head: "GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n", err: ErrMalformed},
		"length and coding": {reason: "CL.TE and TE.CL smuggling", head: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", err: ErrMalformed},
		"two lengths":       {head: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n", err: ErrMalformed},
		"listed lengths":    {head: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n\r\n", err: ErrMalformed},
		"signed length":     {head: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\n", err: ErrMalformed},
		"huge length":       {head: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", err: ErrMalformed},
		"other coding":      {reason: "TE.TE smuggling", head: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", err: ErrCoding},
		"two codings":       {head: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", err: ErrCoding},
		"coding in 1.0":     {head: "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", err: ErrMalformed},
		"space in name":     {head: "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 4\r\n\r\n", err: ErrMalformed},
		"folded line":       {head: "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", err: ErrMalformed},
		"bare line feed":    {head: "GET / HTTP/1.1\nHost: a\r\n\r\n", err: ErrMalformed},
		"bare return":       {head: "GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", err: ErrMalformed},
		"nul in value":      {head: "GET / HTTP/1.1\r\nHost: a\r\nX: b\x00\r\n\r\n", err: ErrMalformed},
		"space in target":   {head: "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", err: ErrMalformed},
		"bad escape":        {head: "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", err: ErrMalformed},
		"nul escape":        {head: "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", err: ErrMalformed},
		"fragment":          {head: "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", err: ErrMalformed},
		"other scheme":      {head: "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", err: ErrMalformed},
		"2.0":               {head: "GET / HTTP/2.0\r\nHost: a\r\n\r\n", err: ErrVersion},
		"0.9":               {head: "GET /\r\n\r\n", err: ErrMalformed},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var r Request
			err := ParseRequest(&r, tc.head)
			if !errors.Is(err, tc.err) {
				t.Fatalf("%s: got error %v, want %v", tc.reason, err, tc.err)
			}
			if err != nil {
				return
			}
			got := want{r.Method, r.Path, r.Query, r.Host, r.Upgrade, r.Length, r.Close, r.Continue, r.Trailers}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func TestHopByHopFieldsAreDropped(t *testing.T) {
	var r Request
	head := "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Secret, Host\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nX-Kept: 2\r\nProxy-Connection: x\r\n\r\n"
	if err := ParseRequest(&r, head); err != nil {
		t.Fatal(err)
	}
	if got, want := string(AppendFields(nil, r.Fields)), "Host: a\r\nX-Kept: 2\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseResponse(t *testing.T) {
	tests := map[string]struct {
		method, head string
		status       int
		length       int64
		close        bool
		err          error
	}{
		"length":           {head: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", status: 200, length: 3},
		"equal lengths":    {head: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", status: 200, length: 3},
		"unequal lengths":  {head: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", err: ErrMalformed},
		"chunked":          {head: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", status: 200, length: -1},
		"both":             {head: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", err: ErrMalformed},
		"until close":      {head: "HTTP/1.1 200 OK\r\n\r\n", status: 200, length: UntilClose, close: true},
		"to HEAD":          {method: "HEAD", head: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", status: 200},
		"not modified":     {head: "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", status: 304},
		"no reason":        {head: "HTTP/1.1 204\r\n\r\n", status: 204},
		"informational":    {head: "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", status: 103},
		"close":            {head: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", status: 200, close: true},
		"1.0":              {head: "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", status: 200, close: true},
		"two digits":       {head: "HTTP/1.1 20 OK\r\n\r\n", err: ErrMalformed},
		"four digits":      {head: "HTTP/1.1 2000 OK\r\n\r\n", err: ErrMalformed},
		"not HTTP":         {head: "SSH-2.0-OpenSSH\r\n\r\n", err: ErrMalformed},
		"gzip, no chunked": {head: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", err: ErrCoding},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var r Response
			err := ParseResponse(&r, tc.head, tc.method)
			if !errors.Is(err, tc.err) {
				t.Fatalf("got error %v, want %v", err, tc.err)
			}
			if err == nil && (r.Status != tc.status || r.Length != tc.length || r.Close != tc.close) {
				t.Errorf("got %d, length %d, close %v; want %d, %d, %v", r.Status, r.Length, r.Close, tc.status, tc.length, tc.close)
			}
		})
	}
}

func TestBody(t *testing.T) {
	tests := map[string]struct {
		in     string
		length int64
		limit  int64
		want   string
		left   string // bytes after the body
		err    error
	}{
		"length":              {in: "hello, next", length: 5, limit: -1, want: "hello", left: ", next"},
		"empty":               {in: "next", length: 0, limit: -1, left: "next"},
		"cut short":           {in: "hel", length: 5, limit: -1, want: "hel", err: io.ErrUnexpectedEOF},
		"chunked":             {in: "5\r\nhello\r\n1;a=b\r\n!\r\n0\r\n\r\nnext", length: -1, limit: -1, want: "hello!", left: "next"},
		"trailers":            {in: "1\r\nx\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\nnext", length: -1, limit: -1, want: "x", left: "next"},
		"chunk cut":           {in: "5\r\nhel", length: -1, limit: -1, want: "hel", err: io.ErrUnexpectedEOF},
		"chunk too long":      {in: "5\r\nhello!\r\n0\r\n\r\n", length: -1, limit: -1, want: "hello", err: ErrMalformed},
		"bare line feed":      {in: "5\nhello\r\n0\r\n\r\n", length: -1, limit: -1, err: ErrMalformed},
		"line feed in an ext": {in: "5;a\nb\r\nhello\r\n0\r\n\r\n", length: -1, limit: -1, err: ErrMalformed},
		"return in an ext":    {in: "5;a\rb\r\nhello\r\n0\r\n\r\n", length: -1, limit: -1, err: ErrMalformed},
		"huge chunk":          {in: "ffffffffffffffff\r\n", length: -1, limit: -1, err: ErrMalformed},
		"negative chunk":      {in: "-1\r\n", length: -1, limit: -1, err: ErrMalformed},
		"long ext":            {in: "1;" + strings.Repeat("a", 5000) + "\r\nx\r\n0\r\n\r\n", length: -1, limit: -1, err: ErrMalformed},
		"until close":         {in: "all of it", length: UntilClose, limit: -1, want: "all of it"},
		"length over limit":   {in: "hello", length: 5, limit: 4, err: ErrBodyTooLarge},
		"chunks over limit":   {in: "3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n", length: -1, limit: 4, want: "abc", err: ErrBodyTooLarge},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var r Reader
			r.Reset(strings.NewReader(tc.in), make([]byte, 16))
			var b Body
			b.Reset(&r, tc.length, tc.limit)
			got, err := io.ReadAll(&b)
			if !errors.Is(err, tc.err) || string(got) != tc.want {
				t.Fatalf("got %q, %v; want %q, %v", got, err, tc.want, tc.err)
			}
			if err != nil {
				return
			}
			if !b.Done() {
				t.Error("the body is not done")
			}
			left, _ := io.ReadAll(&r)
			if string(left) != tc.left {
				t.Errorf("left %q, want %q", left, tc.left)
			}
			if name == "trailers" && string(AppendFields(nil, b.Trailers())) != "X-Sum: 1\r\n" {
				t.Errorf("trailers %v", b.Trailers())
			}
		})
	}
}

func TestReaderHead(t *testing.T) {
	in := "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3"
	for _, size := range []int{8, 64, 1024} {
		var r Reader
		r.Reset(strings.NewReader(in), make([]byte, size))
		for _, want := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /2 HTTP/1.1\r\n\r\n"} {
			got, err := r.Head(1 << 10)
			if err != nil || string(got) != want {
				t.Fatalf("buffer of %d: got %q, %v; want %q", size, got, err, want)
			}
		}
		if _, err := r.Head(1 << 10); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("buffer of %d: cut head: got %v", size, err)
		}
	}
	var r Reader
	r.Reset(strings.NewReader(strings.Repeat("a", 100)), make([]byte, 8))
	if _, err := r.Head(64); !errors.Is(err, ErrHeadTooLarge) {
		t.Errorf("large head: got %v", err)
	}
}

// A chunked body sent as chunked arrives as the same body.
func TestSend(t *testing.T) {
	for _, size := range []int{1 << 10, 32 << 10} {
		want := strings.Repeat("hello", 3000)
		var r Reader
		r.Reset(strings.NewReader(fmt.Sprintf("%x\r\n%s\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n", len(want), want)), make([]byte, 512))
		want += " world"
		var b Body
		b.Reset(&r, -1, -1)
		var sent bytes.Buffer
		n, readErr, writeErr := Send(&sent, append(make([]byte, 0, size), "head"...), &b, true)
		if int(n) != len(want) || readErr != nil || writeErr != nil {
			t.Fatalf("got %d, %v, %v", n, readErr, writeErr)
		}
		if head := sent.Next(4); string(head) != "head" {
			t.Fatalf("head %q", head)
		}
		var r2 Reader
		r2.Reset(&sent, make([]byte, 64))
		b.Reset(&r2, -1, -1)
		got, err := io.ReadAll(&b)
		if string(got) != want || err != nil || len(b.Trailers()) != 1 {
			t.Errorf("got %d bytes, %v, trailers %v", len(got), err, b.Trailers())
		}
	}
}

// A stream's pieces are sent on as they come, wherever packets are cut.
func TestSendHoldsNothingBack(t *testing.T) {
	in, feed := io.Pipe()
	out, sink := io.Pipe()
	go func() {
		var r Reader
		r.Reset(in, make([]byte, 512))
		var b Body
		b.Reset(&r, -1, -1)
		_, _, _ = Send(sink, make([]byte, 0, 1<<10), &b, true)
		sink.Close()
	}()
	var r Reader
	r.Reset(out, make([]byte, 512))
	var b Body
	b.Reset(&r, -1, -1)
	for _, piece := range []string{"5\r\nfirst\r\n", "6\r\nsecond\r\n5", "\r\nthird\r", "\n0\r\n\r\n"} {
		if _, err := feed.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
		want := strings.FieldsFunc(piece, func(r rune) bool { return r < 'a' })
		if len(want) == 0 {
			break
		}
		got := make([]byte, len(want[0]))
		if _, err := io.ReadFull(&b, got); err != nil || string(got) != want[0] {
			t.Fatalf("after %q: got %q, %v", piece, got, err)
		}
	}
	if _, err := b.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("end: got %v", err)
	}
}

// What this package accepts, net/http accepts and understands alike.
func FuzzParseRequest(f *testing.F) {
	f.Add([]byte("GET /a?b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"))
	f.Add([]byte("POST http://a:80/ HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\nabc"))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\nConnection: x\r\n\r\n3;a\r\nabc\r\n0\r\nT: u\r\n\r\n"))
	f.Add([]byte("OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var rd Reader
		rd.Reset(bytes.NewReader(in), make([]byte, 32))
		head, err := rd.Head(1 << 12)
		if err != nil {
			return
		}
		var got Request
		if ParseRequest(&got, string(head)) != nil || got.Method == "CONNECT" {
			return
		}
		var body Body
		body.Reset(&rd, got.Length, -1)
		gotBody, gotErr := io.ReadAll(&body)

		// net/http does not skip the empty lines that Head skips.
		want, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimLeft(in, "\r\n"))))
		if err != nil {
			t.Fatalf("net/http refuses it: %v", err)
		}
		if want.Method != got.Method || want.RequestURI != got.Target || want.Host != got.Host {
			t.Fatalf("got %s %s for %s, net/http %s %s for %s", got.Method, got.Target, got.Host, want.Method, want.RequestURI, want.Host)
		}
		if want.ContentLength != got.Length {
			t.Fatalf("got length %d, net/http %d", got.Length, want.ContentLength)
		}
		header := http.Header{}
		for _, f := range got.Fields {
			switch f.Kind {
			case Host, TransferEncoding, Trailer:
			default:
				header.Add(f.Name, f.Value)
			}
		}
		want.Header.Del("Trailer")
		if diff := cmp.Diff(want.Header, header); diff != "" {
			t.Fatalf("fields (-net/http +got):\n%s", diff)
		}
		if gotErr != nil {
			return
		}
		wantBody, err := io.ReadAll(want.Body)
		if err != nil || !bytes.Equal(wantBody, gotBody) {
			t.Fatalf("body %q, net/http %q, %v", gotBody, wantBody, err)
		}
	})
}

// Whatever a backend answers, reading it terminates and never panics.
func FuzzParseResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"), "GET")
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "GET")
	f.Fuzz(func(t *testing.T, in []byte, method string) {
		var rd Reader
		rd.Reset(bytes.NewReader(in), make([]byte, 32))
		head, err := rd.Head(1 << 12)
		if err != nil {
			return
		}
		var resp Response
		if ParseResponse(&resp, string(head), method) != nil {
			return
		}
		var body Body
		body.Reset(&rd, resp.Length, -1)
		_, _ = io.Copy(io.Discard, &body)
	})
}

func BenchmarkParseRequest(b *testing.B) {
	head := "GET /path/to/thing?query=1 HTTP/1.1\r\nHost: app.emerald.localhost\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Encoding: gzip, deflate, br\r\nAccept-Language: en\r\nCookie: session=0123456789abcdef0123456789abcdef\r\nConnection: keep-alive\r\n\r\n"
	var r Request
	b.ReportAllocs()
	b.SetBytes(int64(len(head)))
	for b.Loop() {
		if err := ParseRequest(&r, head); err != nil {
			b.Fatal(err)
		}
	}
}
