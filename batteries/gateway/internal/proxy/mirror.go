package proxy

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/upstream"
)

// maxMirrorBody is the largest body of which copies are sent. Larger requests
// are not mirrored: keeping them would cost more than the copy is worth.
const maxMirrorBody = 64 << 10

// maxMirrors bounds the copies under way at once; more are dropped.
const maxMirrors = 256

// mirror sends copies of the prepared request to other backends.
func (x *exchange) mirror(mirrors []mirror) {
	for i := range mirrors {
		m := &mirrors[i]
		if m.Numerator < m.Denominator && spread(m.turn.Add(1), uint64(m.Denominator)) >= uint64(m.Numerator) {
			continue
		}
		body, ok := x.bodyCopy()
		s := x.port.server
		if !ok || s.mirroring.Add(1) > maxMirrors {
			if ok {
				s.mirroring.Add(-1)
			}
			s.opts.Metrics.mirrorsDropped.Inc()
			continue
		}
		req, err := x.copyRequest(m.live, body)
		if err != nil {
			s.mirroring.Add(-1)
			continue
		}
		s.group.Go(func() error {
			defer s.mirroring.Add(-1)
			sendCopy(m.live, req)
			return nil
		})
	}
}

// bodyCopy returns the request's body for a copy, leaving it to be read again,
// unless it is too large or its end is not known.
func (x *exchange) bodyCopy() (string, bool) {
	if x.length == 0 {
		return "", true
	}
	if x.length < 0 || x.length > maxMirrorBody {
		return "", false
	}
	if kept, ok := x.requestBody.(*keptBody); ok {
		return kept.all, true
	}
	if x.letBodyCome() != nil {
		return "", false
	}
	all, err := io.ReadAll(x.requestBody)
	if err != nil {
		x.requestBody = &keptBody{err: err}
		return "", false
	}
	x.requestBody = &keptBody{all: string(all), textSource: textSource{text: string(all)}}
	return string(all), true
}

// keptBody is a request body that was read ahead.
type keptBody struct {
	textSource
	all string
	err error
}

func (k *keptBody) Read(p []byte) (int, error) {
	if k.err != nil {
		return 0, k.err
	}
	if k.text == "" {
		return 0, io.EOF
	}
	return k.textSource.Read(p)
}

func (k *keptBody) Buffered() bool { return k.err == nil }

// copyRequest makes a request for net/http of the prepared one.
func (x *exchange) copyRequest(b *upstream.Backend, body string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(context.Background(), x.request.Method, "http://mirror"+x.path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if b.Secure() {
		req.URL.Scheme = "https"
	}
	req.Host = x.authority
	req.Header = headerOf(x.fields)
	return req, nil
}

// headerOf returns fields as net/http has them. Names keep their spelling.
func headerOf(fields []http1.Field) http.Header {
	h := make(http.Header, len(fields)+1)
	for i := range fields {
		if f := &fields[i]; !f.Kind.HopByHop() {
			name := http.CanonicalHeaderKey(f.Name)
			h[name] = append(h[name], f.Value)
		}
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil // else net/http sends its own
	}
	return h
}

// sendCopy sends a copy and drops the answer.
func sendCopy(b *upstream.Backend, req *http.Request) {
	ctx, cancel := context.WithTimeout(req.Context(), 30*time.Second)
	defer cancel()
	e := b.Pick(time.Now(), nil)
	if e == nil {
		return
	}
	defer e.Done()
	req = req.WithContext(ctx)
	req.URL.Host = e.Address
	resp, err := b.Client().RoundTrip(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
}
