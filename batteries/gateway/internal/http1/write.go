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

// ChunkOverhead is how many bytes AppendChunkSize appends at most.
const ChunkOverhead = 18

// AppendChunkSize appends the line before n bytes of chunk data, which the
// caller ends with CRLF.
func AppendChunkSize(b []byte, n int) []byte {
	b = strconv.AppendInt(b, int64(n), 16)
	return append(b, "\r\n"...)
}

// AppendLastChunk appends the end of a chunked body with its trailer fields.
func AppendLastChunk(b []byte, trailers []Field) []byte {
	b = append(b, "0\r\n"...)
	b = AppendFields(b, trailers)
	return append(b, "\r\n"...)
}

// CopyBody copies a body to a connection until its end, framing it anew:
// chunked if chunked is set, else as it is. Every piece is written as soon as
// it was read, so that streams stream. Buf must be longer than 4 KiB. It
// returns the number of body bytes written, and on errors tells which side
// failed.
func CopyBody(dst io.Writer, src *Body, chunked bool, buf []byte) (n int64, readErr, writeErr error) {
	for {
		at := 0
		if chunked {
			at = ChunkOverhead
		}
		m, err := src.Read(buf[at : len(buf)-2])
		if m > 0 {
			out := buf[at : at+m]
			if chunked {
				var size [ChunkOverhead]byte
				line := AppendChunkSize(size[:0], m)
				start := at - len(line)
				copy(buf[start:], line)
				out = append(buf[start:at+m], "\r\n"...)
			}
			if _, err := dst.Write(out); err != nil {
				return n, nil, err
			}
			n += int64(m)
		}
		if err == io.EOF {
			if chunked {
				if _, err := dst.Write(AppendLastChunk(buf[:0], src.Trailers)); err != nil {
					return n, nil, err
				}
			}
			return n, nil, nil
		}
		if err != nil {
			return n, err, nil
		}
	}
}
