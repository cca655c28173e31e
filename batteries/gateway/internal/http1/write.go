package http1

import (
	"io"
	"strconv"
)

// AppendField appends one field line.
func AppendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// AppendFields appends the end-to-end fields among fields: those that concern
// only one connection are left out.
func AppendFields(b []byte, fields []Field) []byte {
	for i := range fields {
		if f := &fields[i]; !f.Kind.HopByHop() {
			b = AppendField(b, f.Name, f.Value)
		}
	}
	return b
}

// AppendStatus appends the status line of an HTTP/1.1 response. An empty
// reason is allowed (RFC 9112 §4).
func AppendStatus(b []byte, status int, reason string) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, reason...)
	return append(b, "\r\n"...)
}

// AppendLength appends the field that frames a body of the given length; see
// [Request.Length]. It appends nothing for [UntilClose].
func AppendLength(b []byte, length int64) []byte {
	switch {
	case length >= 0:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, length, 10)
		return append(b, "\r\n"...)
	case length == UntilClose:
		return b
	}
	return append(b, "Transfer-Encoding: chunked\r\n"...)
}

// AppendLastChunk appends the end of a chunked body with its trailer fields.
func AppendLastChunk(b []byte, trailers []Field) []byte {
	b = append(b, "0\r\n"...)
	b = AppendFields(b, trailers)
	return append(b, "\r\n"...)
}

// Source is a body to send: a [Body], or anything like it.
type Source interface {
	io.Reader
	// Ready tells whether Read will return at once. False is a safe answer.
	Ready() bool
	// Trailers returns the trailer fields after Read returned io.EOF.
	Trailers() []Field
}

// chunkFrame is what surrounds the data of a chunk: four digits of its size,
// and two line ends.
const chunkFrame = 4 + 2 + 2

// Send writes out, which holds a head or nothing, and the body after it, in as
// few writes as possible; but what was read is never held back while waiting
// for more. The body is framed as chunked if that is set, else sent as it is.
// The spare capacity of out is the space used, and must be 1 to 64 KiB. It
// returns the number of body bytes written, and which side failed.
func Send(w io.Writer, out []byte, body Source, chunked bool) (n int64, readErr, writeErr error) {
	frame := 0
	if chunked {
		frame = chunkFrame
	}
	full := cap(out) - cap(out)/4
	for {
		if len(out) > 0 && (len(out) > full || !body.Ready()) {
			if _, err := w.Write(out); err != nil {
				return n, nil, err
			}
			out = out[:0]
		}
		at := len(out)
		if chunked {
			at += chunkFrame - 2
		}
		m, err := body.Read(out[at : cap(out)-frame])
		if m > 0 {
			if chunked {
				out = appendChunkSize(out, m)
				out = append(out[:at+m], "\r\n"...)
			} else {
				out = out[:at+m]
			}
			n += int64(m)
		}
		if err != nil && err != io.EOF {
			// Half a body is of use to nobody, half a head neither.
			return n, err, nil
		}
		if err == io.EOF {
			if chunked {
				out = AppendLastChunk(out, body.Trailers())
			}
			if len(out) > 0 {
				_, err = w.Write(out)
				return n, nil, err
			}
			return n, nil, nil
		}
	}
}

// appendChunkSize appends the line before n bytes of a chunk, always of the
// same length, so that its place can be left open before n is known.
func appendChunkSize(b []byte, n int) []byte {
	const digits = "0123456789abcdef"
	return append(b, digits[n>>12&15], digits[n>>8&15], digits[n>>4&15], digits[n&15], '\r', '\n')
}
