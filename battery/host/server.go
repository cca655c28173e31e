package host

import (
	"errors"
	"net/http"
	"time"

	"golang.org/x/sys/unix"
)

// How long a request waits for an API server that is not there, and how often
// it looks.
const (
	serverAway  = 30 * time.Second
	serverKnock = 100 * time.Millisecond
)

// untilServed makes questions to the API server wait while nobody listens there,
// as when it restarts. Failing at once would be worse: the watches of client-go
// pause longer after each failure, up to a minute, and a battery would act on an
// old picture for as long after the server is back.
type untilServed struct{ next http.RoundTripper }

func waitForServer(next http.RoundTripper) http.RoundTripper { return untilServed{next} }

// RoundTrip implements http.RoundTripper. A request that was refused was not
// sent; one with a body is left to its caller all the same, since the body may
// be used up.
func (u untilServed) RoundTrip(req *http.Request) (*http.Response, error) {
	began := time.Now()
	for {
		resp, err := u.next.RoundTrip(req)
		if err == nil || req.Body != nil || !errors.Is(err, unix.ECONNREFUSED) || time.Since(began) > serverAway {
			return resp, err
		}
		t := time.NewTimer(serverKnock)
		select {
		case <-t.C:
		case <-req.Context().Done():
			t.Stop()
			return nil, err
		}
	}
}
