package http1

import (
	"bytes"
	"fmt"
	"io"
)

// Reader is a connection's input: a buffer that heads are found in and bodies
// are read through. It is not safe for concurrent use. The zero value has no
// source; see Reset.
type Reader struct {
	src  io.Reader
	buf  []byte
	r, w int // buf[r:w] is unread
}

// Reset makes the Reader read from src through buf, whose length is the
// smallest buffer it will use. It may be called with nil and nil to give both
// up, which loses what is buffered.
func (r *Reader) Reset(src io.Reader, buf []byte) {
	*r = Reader{src: src, buf: buf}
}

// Buffer returns the buffer in use, to be recycled once the Reader was reset.
func (r *Reader) Buffer() []byte { return r.buf }

// Buffered returns the number of bytes that can be read without the source.
func (r *Reader) Buffered() int { return r.w - r.r }

// Peek returns the unread bytes in the buffer. They stay valid until the next
// call of any other method.
func (r *Reader) Peek() []byte { return r.buf[r.r:r.w] }

// Discard skips n buffered bytes.
func (r *Reader) Discard(n int) { r.r += n }

// Fill reads from the source once, and so may block. It returns an error only
// when it read nothing. The buffer grows to at most limit bytes; a full buffer
// of that size is [ErrHeadTooLarge].
func (r *Reader) Fill(limit int) error {
	if r.r == r.w {
		r.r, r.w = 0, 0
	}
	if r.w == len(r.buf) {
		switch {
		case r.r > 0:
			r.w = copy(r.buf, r.buf[r.r:r.w])
			r.r = 0
		case len(r.buf) >= limit:
			return ErrHeadTooLarge
		default:
			grown := make([]byte, min(2*len(r.buf), limit))
			copy(grown, r.buf)
			r.buf = grown
		}
	}
	for {
		n, err := r.src.Read(r.buf[r.w:])
		r.w += n
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Head returns the next message head, up to and including the empty line, and
// consumes it. It skips empty lines before it (RFC 9112 §2.2). The bytes stay
// valid until the next call. io.EOF means that the source ended before the
// first byte, io.ErrUnexpectedEOF that it ended within the head.
func (r *Reader) Head(limit int) ([]byte, error) {
	searched := 0
	for {
		for r.r < r.w && searched == 0 && (r.buf[r.r] == '\r' || r.buf[r.r] == '\n') {
			r.r++
		}
		unread := r.buf[r.r:r.w]
		if i := bytes.Index(unread[searched:], endOfHead); i >= 0 {
			n := searched + i + len(endOfHead)
			if n > limit {
				return nil, ErrHeadTooLarge
			}
			r.r += n
			return unread[:n], nil
		}
		searched = max(0, len(unread)-len(endOfHead)+1)
		if len(unread) > 0 && searched == 0 {
			searched = 1 // the first byte is no longer skippable
		}
		if err := r.Fill(limit); err != nil {
			if err == io.EOF && len(unread) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

var endOfHead = []byte("\r\n\r\n")

// Read implements io.Reader over the buffer and then the source. Large reads
// of an empty buffer bypass it.
func (r *Reader) Read(p []byte) (int, error) {
	if r.r == r.w {
		if len(p) >= len(r.buf) {
			return r.src.Read(p)
		}
		if err := r.Fill(len(r.buf)); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.buf[r.r:r.w])
	r.r += n
	return n, nil
}

// line returns the next line without its CRLF and consumes it. Lines longer
// than maxChunkLine are malformed.
func (r *Reader) line() ([]byte, error) {
	searched := 0
	for {
		unread := r.buf[r.r:r.w]
		if i := bytes.IndexByte(unread[searched:], '\n'); i >= 0 {
			n := searched + i
			if n == 0 || unread[n-1] != '\r' || n > maxChunkLine {
				return nil, fmt.Errorf("%w: line end in chunked body", ErrMalformed)
			}
			r.r += n + 1
			return unread[:n-1], nil
		}
		if searched = len(unread); searched > maxChunkLine {
			return nil, fmt.Errorf("%w: line in chunked body too long", ErrMalformed)
		}
		if err := r.Fill(2 * maxChunkLine); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// maxChunkLine bounds a chunk's size line with its extensions, and one
// trailer field.
const maxChunkLine = 4096
