package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// patience is how long a transfer may stand still.
const patience = time.Minute

// errInterrupted says that a client stopped sending.
var errInterrupted = errors.New("the client stopped sending")

// response is an http.ResponseWriter that remembers what was sent, and gives up
// on a client that stopped reading.
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	status  int   // 0 until the answer begins
	bytes   int64 // of the body
	err     error // of the last failed write

	received int64 // bytes of content that the client sent
}

func newResponse(w http.ResponseWriter) *response {
	return &response{ResponseWriter: w, control: http.NewResponseController(w)}
}

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.extend(patience)
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	if err != nil {
		w.err = err
	}
	return n, err
}

// extend puts off the moment at which the server gives the connection up. A
// server without deadlines, as in tests, has none to put off.
func (w *response) extend(d time.Duration) {
	at := time.Now().Add(d)
	_ = w.control.SetReadDeadline(at)
	_ = w.control.SetWriteDeadline(at)
}

// body reads what a client sends, at most limit bytes, and gives up on a client
// that stopped sending.
type body struct {
	src   io.Reader
	w     *response
	left  int64 // bytes that are still allowed
	over  error // what to return when there are more
	count int64 // bytes read
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.w.extend(patience)
	// One byte more than allowed tells "full" from "too much".
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.src.Read(p)
	if int64(n) > b.left {
		return 0, b.over
	}
	b.left -= int64(n)
	b.count += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", errInterrupted, err)
	}
	return n, err
}
