package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
)

func TestMetrics(t *testing.T) {
	h := start(t, nil)
	m := h.server.opts.Metrics
	h.apply(match("a.example", "/", &model.Rule{Backends: []model.Backend{h.backend("one", model.HTTP1, named("one"))}}))
	client := h.client("http/1.1")
	for range 3 {
		if _, err := get(client, "http://a.example/"); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := client.Get("http://b.example/")
	read(t, resp, err, 404)
	want := `
# HELP gateway_requests_total Requests by gateway, route (kind/namespace/name), backend (namespace/service) and status code.
# TYPE gateway_requests_total counter
gateway_requests_total{backend="",code="404",gateway="ns/gw",route=""} 1
gateway_requests_total{backend="ns/one",code="200",gateway="ns/gw",route="HTTPRoute/ns/test"} 3
`
	// A client has the last byte of its answer before the answer is counted.
	eventually(t, func() error { return testutil.CollectAndCompare(m, strings.NewReader(want), "gateway_requests_total") })
	// The counters outlive a change, and go with the route.
	h.apply(match("a.example", "/x", &model.Rule{Backends: []model.Backend{h.backendAt("one", model.HTTP1)}}))
	if err := testutil.CollectAndCompare(m, strings.NewReader(want), "gateway_requests_total"); err != nil {
		t.Error(err)
	}
	h.apply()
	if n := testutil.CollectAndCount(m, "gateway_requests_total"); n != 1 {
		t.Errorf("%d series are left", n)
	}
}

// eventually fails the test with check's last error unless it returns nil soon.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline, tick := time.After(10*time.Second), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-tick.C:
		}
	}
}

func TestRouteStatsHaveRoomForEveryCode(t *testing.T) {
	var s routeStats
	for code := 200; code < 220; code++ {
		s.count(code)
	}
	total := uint64(0)
	for i := range s.codes {
		total += s.codes[i].count.Load()
	}
	if total != 20 {
		t.Errorf("counted %d of 20", total)
	}
}

func TestAccessLog(t *testing.T) {
	var out bytes.Buffer
	h := start(t, func(o *Options) { o.AccessLog = NewAccessLog(AccessErrors, 1, &out) })
	h.apply(
		match("a.example", "/none", &model.Rule{Backends: []model.Backend{h.backendAt("none", model.HTTP1)}}),
		match("a.example", "/", &model.Rule{Backends: []model.Backend{h.backend("one", model.HTTP1, named("one"))}}),
	)
	client := h.client("http/1.1")
	if _, err := get(client, "http://a.example/?token=secret"); err != nil {
		t.Fatal(err)
	}
	resp, err := client.Get("http://a.example/none?token=secret")
	read(t, resp, err, 503)
	h.stop()
	var line struct {
		Status              int
		Path, Problem, Host string
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if line.Status != 503 || line.Path != "/none" || line.Host != "a.example" || !strings.Contains(line.Problem, "no ready endpoint") || strings.Contains(out.String(), "secret") {
		t.Errorf("got %s", out.String())
	}
}

// A log that nobody takes never delays requests.
func TestAccessLogFallsBehind(t *testing.T) {
	l := NewAccessLog(AccessAll, 1, &bytes.Buffer{})
	for range 10_000 {
		l.add(accessRecord{at: time.Unix(0, 0)})
	}
	if l.dropped.Load() == 0 {
		t.Error("nothing was dropped")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.run(ctx); err != nil || len(l.records) != 0 {
		t.Errorf("got %v, %d records left", err, len(l.records))
	}
}
