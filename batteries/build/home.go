package build

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/moby/buildkit/util/progress/logs"
	"golang.org/x/sys/unix"
)

// Times for a registry that is not there, as when it restarts.
const (
	homeAway  = time.Minute // how long a build waits for it
	homeKnock = 200 * time.Millisecond
)

// home is the way to the platform's own registry.
//
// A build does not fail because the registry restarts: nothing was sent on a
// connection that was refused, so asking for it again repeats nothing, and what
// broke off in the middle BuildKit itself does again, blob by blob. BuildKit
// alone would give up at the first refusal.
type home struct {
	address    string // and port
	serverName string
	ca         string // file
	patience   time.Duration

	// tell reaches the user whose request ctx belongs to: of those who find the
	// registry away, the first.
	tell func(ctx context.Context, line string)
	away atomic.Bool
}

func newHome(address, serverName string) *home {
	return &home{address: address, serverName: serverName, ca: caFile, patience: homeAway,
		tell: func(ctx context.Context, line string) { logs.LoggerFromContext(ctx)([]byte(line + "\n")) }}
}

// client returns a client whose every connection leads home.
func (h *home) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialTLSContext:      func(ctx context.Context, network, _ string) (net.Conn, error) { return h.dial(ctx, network) },
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     2 * time.Minute,
		// HTTP/2's flow control halves the speed of large pushes, which is why
		// BuildKit does without it, too.
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}}
}

// dial connects, and waits for a registry that is away.
func (h *home) dial(ctx context.Context, network string) (net.Conn, error) {
	began := time.Now()
	tick := time.NewTicker(homeKnock)
	defer tick.Stop()
	for {
		conn, err := h.knock(ctx, network)
		if !isAway(err) {
			h.away.Store(false)
			return conn, err
		}
		if h.away.CompareAndSwap(false, true) {
			h.tell(ctx, "the registry does not answer, trying again")
		}
		if time.Since(began) >= h.patience {
			return nil, fmt.Errorf("wait for the registry: %w: see what it lacks with: emerald status", err)
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-tick.C:
		}
	}
}

// knock connects once. It reads the platform's certificate authority anew for
// every connection: it is replaced while this runs.
func (h *home) knock(ctx context.Context, network string) (net.Conn, error) {
	ca, err := os.ReadFile(h.ca)
	if err != nil {
		return nil, fmt.Errorf("read the platform's certificate authority: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second, KeepAlive: time.Minute},
		Config: &tls.Config{RootCAs: roots, ServerName: h.serverName, MinVersion: tls.VersionTLS12}}
	return d.DialContext(ctx, network, h.address)
}

// isAway tells whether nobody was there to speak to: no pod behind the address,
// none any more, or one that ended while it was greeted.
func isAway(err error) bool {
	for _, cause := range []error{unix.ECONNREFUSED, unix.ECONNRESET, unix.EHOSTUNREACH, unix.EPIPE, io.EOF} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}
