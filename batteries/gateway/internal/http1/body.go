package http1

import (
	"bytes"
	"fmt"
	"io"
)

// Body reads one message body out of a connection's [Reader], undoing its
// framing. It never reads past the body's end. It is not safe for concurrent
// use.
type Body struct {
	src      *Reader
	left     int64 // of the body, or of the current chunk
	limit    int64 // bytes still allowed; negative for no limit
	chunked  bool
	toEOF    bool
	started  bool // a chunk was read, so a CRLF follows its data
	err      error
	trailers []Field
}

// Reset makes the body read from src. Length is as in [Request] and
// [Response]; limit is the most bytes it may deliver, negative for any number.
func (b *Body) Reset(src *Reader, length, limit int64) {
	*b = Body{src: src, limit: limit, trailers: b.trailers[:0]}
	switch {
	case length == UntilClose:
		b.toEOF = true
	case length < 0:
		b.chunked = true
	default:
		b.left = length
		if limit >= 0 && length > limit {
			b.err = ErrBodyTooLarge
		} else if length == 0 {
			b.err = io.EOF
		}
	}
}

// Trailers returns the trailer fields of a chunked body once Read returned
// io.EOF. Fields that frame or route a message are left out (RFC 9110 §6.5.1).
func (b *Body) Trailers() []Field { return b.trailers }

// Done tells whether the body was read to its end, trailers included.
func (b *Body) Done() bool { return b.err == io.EOF }

// Ready tells whether Read has something to return without waiting for the
// source.
func (b *Body) Ready() bool {
	if b.err != nil {
		return true
	}
	unread := b.src.Peek()
	if !b.chunked || b.left > 0 {
		return len(unread) > 0
	}
	if b.started {
		unread = bytes.TrimPrefix(unread, endOfLine)
	}
	// A chunk's size is of use only with the first byte after it.
	i := bytes.IndexByte(unread, '\n')
	return i >= 0 && i+1 < len(unread)
}

var endOfLine = []byte("\r\n")

// Buffered tells whether the whole rest of the body can be read without
// waiting for the source. It is never true of chunked bodies.
func (b *Body) Buffered() bool {
	return b.err == io.EOF || !b.chunked && !b.toEOF && b.left <= int64(b.src.Buffered())
}

// Read implements io.Reader. Ending early is io.ErrUnexpectedEOF.
func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.read(p)
	if b.limit >= 0 {
		if b.limit -= int64(n); b.limit < 0 {
			n, err = 0, ErrBodyTooLarge
		}
	}
	b.err = err
	if n > 0 && err == io.EOF {
		// Delivered with the next call, as io.Reader allows.
		return n, nil
	}
	return n, err
}

func (b *Body) read(p []byte) (int, error) {
	if b.toEOF {
		return b.src.Read(p)
	}
	if b.chunked && b.left == 0 {
		if err := b.nextChunk(); err != nil {
			return 0, err
		}
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.src.Read(p)
	b.left -= int64(n)
	if b.left == 0 && !b.chunked {
		return n, io.EOF
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// nextChunk reads up to the data of the next chunk. It returns io.EOF after
// the last chunk and the trailers (RFC 9112 §7.1).
func (b *Body) nextChunk() error {
	if b.started {
		line, err := b.src.line()
		if err != nil {
			return err
		}
		if len(line) != 0 {
			return fmt.Errorf("%w: chunk longer than its size", ErrMalformed)
		}
	}
	b.started = true
	line, err := b.src.line()
	if err != nil {
		return err
	}
	size, ok := parseChunkSize(line)
	if !ok {
		return fmt.Errorf("%w: chunk size", ErrMalformed)
	}
	if size > 0 {
		b.left = size
		return nil
	}
	return b.readTrailers()
}

// parseChunkSize parses a chunk's size line. Extensions are checked for bytes
// that other parsers might take for a line end, and otherwise ignored.
func parseChunkSize(line []byte) (int64, bool) {
	var n int64
	i := 0
	for ; i < len(line) && unhex[line[i]] >= 0; i++ {
		if i == 15 {
			return 0, false
		}
		n = n<<4 | int64(unhex[line[i]])
	}
	if i == 0 {
		return 0, false
	}
	for i < len(line) && (line[i] == ' ' || line[i] == '\t') {
		i++
	}
	if i < len(line) && line[i] != ';' {
		return 0, false
	}
	return n, all(string(line[i:]), classValue)
}

func (b *Body) readTrailers() error {
	for total := 0; ; {
		line, err := b.src.line()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return io.EOF
		}
		if total += len(line); total > 4*maxChunkLine || len(b.trailers) == maxFields {
			return ErrHeadTooLarge
		}
		b.trailers, err = parseFields(b.trailers, string(line)+"\r\n\r\n")
		if err != nil {
			return err
		}
		if f := b.trailers[len(b.trailers)-1]; f.Kind == Host || f.Kind.HopByHop() || f.Kind.Provenance() || EqualFold(f.Name, "authorization") {
			b.trailers = b.trailers[:len(b.trailers)-1]
		}
	}
}
