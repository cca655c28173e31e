package host

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// refusals is a server that is not there for the first so many requests.
type refusals struct{ left int }

func (r *refusals) RoundTrip(*http.Request) (*http.Response, error) {
	if r.left--; r.left >= 0 {
		return nil, &net.OpError{Op: "dial", Err: unix.ECONNREFUSED}
	}
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}

func TestWaitForServer(t *testing.T) {
	for _, tt := range []struct {
		reason, body string
		left         int
		want         error
	}{
		{reason: "it is there"},
		{reason: "it comes back", left: 2},
		{reason: "a body could be used up", left: 1, body: "{}", want: unix.ECONNREFUSED},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://192.0.2.1/", nil)
			if tt.body != "" {
				req, err = http.NewRequestWithContext(t.Context(), http.MethodPost, "https://192.0.2.1/", strings.NewReader(tt.body))
			}
			if err != nil {
				t.Fatal(err)
			}
			resp, err := waitForServer(&refusals{left: tt.left}).RoundTrip(req)
			if !errors.Is(err, tt.want) {
				t.Fatalf("RoundTrip = %v, want %v", err, tt.want)
			}
			if err == nil {
				resp.Body.Close()
			}
		})
	}
}
