package proxy

import (
	"io"
	"net"
	"time"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
)

// inform sends an informational response.
func (c *client) inform(status int, fields []http1.Field) error {
	if c.x.http1.Minor == 0 {
		return nil
	}
	out := http1.AppendStatus(make([]byte, 0, 512), status, statusText(status))
	out = http1.AppendFields(out, fields)
	return c.write(append(out, "\r\n"...))
}

// proceed sends 100 (Continue).
func (c *client) proceed() error {
	return c.write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
}

// respond sends a final response over HTTP/1.1.
func (c *client) respond(x *exchange, r *response, source http1.Source) (readErr, writeErr error) {
	out := http1.AppendStatus(x.space(), r.status, r.reason)
	out = http1.AppendFields(out, r.fields)
	if !hasDate(r.fields) {
		out = c.port.server.appendDate(out, x.start)
	}
	chunked := false
	switch {
	case source == nil:
		// A response to HEAD and a 304 say how long the body would be.
		length := r.declared
		if x.request.Method != "HEAD" && r.status != 304 {
			length = 0
		}
		if length >= 0 && r.status != 204 {
			out = http1.AppendLength(out, length)
		}
	case r.length >= 0:
		out = http1.AppendLength(out, r.length)
	case x.http1.Minor == 1:
		chunked = true
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	default:
		x.closing = true
	}
	switch {
	case x.closing:
		out = append(out, "Connection: close\r\n"...)
	case x.http1.Minor == 0:
		out = append(out, "Connection: keep-alive\r\n"...)
	}
	out = append(out, "\r\n"...)
	if source == nil || x.request.Method == "HEAD" {
		return nil, c.write(out)
	}
	x.sent, readErr, writeErr = http1.Send(writerFunc(c.write), out, source, chunked)
	return readErr, writeErr
}

// writerFunc makes a function an io.Writer.
type writerFunc func([]byte) error

func (f writerFunc) Write(p []byte) (int, error) {
	if err := f(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

var _ io.Writer = writerFunc(nil)

// stopBody interrupts a read.
func (c *client) stopBody() {
	_ = c.conn.SetReadDeadline(time.Unix(1, 0))
	c.readBy = time.Time{}
}

// hijack hands the connection over for good.
func (c *client) hijack() (net.Conn, []byte) {
	_ = c.conn.SetDeadline(time.Time{})
	return c.conn, c.in.Peek()
}

func hasDate(fields []http1.Field) bool {
	for i := range fields {
		if fields[i].Kind == http1.Date {
			return true
		}
	}
	return false
}

// dateLine is the Date field of one second, as sent.
type dateLine struct {
	second int64
	line   string
}

// appendDate appends the Date field (RFC 9110 §6.6.1), which is formatted once
// a second.
func (s *Server) appendDate(out []byte, now time.Time) []byte {
	d := s.date.Load()
	if d == nil || d.second != now.Unix() {
		d = &dateLine{now.Unix(), "Date: " + now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT") + "\r\n"}
		s.date.Store(d)
	}
	return append(out, d.line...)
}
