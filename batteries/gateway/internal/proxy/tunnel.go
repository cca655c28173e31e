package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/upstream"
)

// tunnel joins client and backend after the backend agreed to change the
// protocol (RFC 9110 §7.8), until both have closed.
func (x *exchange) tunnel(conn *upstream.Conn, resp *http1.Response) {
	defer conn.Discard()
	x.status, x.tunnelled, x.closing = 101, true, true
	client, ahead := x.reply.hijack()
	if client == nil {
		x.fail(502, "this client cannot change the protocol")
		return
	}
	_ = conn.ReadWithin(x.start, 0, false)
	_ = conn.SetDeadline(time.Time{})
	out := http1.AppendStatus(x.space(), 101, resp.Reason)
	out = http1.AppendFields(out, x.editResponse(resp.Fields))
	out = http1.AppendField(out, "Connection", "Upgrade")
	out = http1.AppendField(out, "Upgrade", x.http1.Upgrade)
	out = append(out, "\r\n"...)
	out = append(out, conn.In.Peek()...)
	if _, err := client.Write(out); err != nil {
		return
	}
	if len(ahead) > 0 {
		if _, err := conn.Write(ahead); err != nil {
			return
		}
	}
	x.release()
	// Closing the process' listeners cuts tunnels like other clients; each
	// side's end is passed on so that the other can finish.
	m := x.port.server.opts.Metrics
	m.tunnels.Inc()
	defer m.tunnels.Dec()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		copyHalf(conn.Conn, client)
	}()
	x.sent = copyHalf(client, conn.Conn)
	<-ended
}

// copyHalf copies one direction of a tunnel. When its source ends, the
// destination is told; when the destination is gone, so is the source.
func copyHalf(dst, src net.Conn) int64 {
	n, err := io.Copy(dst, src)
	if half, ok := dst.(interface{ CloseWrite() error }); err == nil && ok {
		if half.CloseWrite() == nil {
			// The other direction has as long as it takes to say good-bye.
			_ = dst.SetReadDeadline(time.Now().Add(tunnelGoodbye))
			return n
		}
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		src.Close()
	}
	dst.Close()
	return n
}

// tunnelGoodbye is how long one side of a tunnel may go on sending after the
// other has ended.
const tunnelGoodbye = 30 * time.Second
