package api_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/emerald-platform/emerald/batteries/registry/internal/api"
	"github.com/emerald-platform/emerald/batteries/registry/internal/upstream"
)

// world is a registry that copies from another one, which is a registry of the
// same kind, and counts what that one is asked for.
type world struct {
	*registry
	origin *registry
	front  *httptest.Server // before the origin
	asked  atomic.Int64     // requests that reached the origin
	spoil  atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	reg    *prometheus.Registry
}

func newWorld(t *testing.T, ttl time.Duration) *world {
	w := &world{origin: serve(t, func(o *options) { o.open = true }), reg: prometheus.NewRegistry()}
	w.front = httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		w.asked.Add(1)
		if spoil := w.spoil.Load(); spoil != nil && (*spoil)(out, in) {
			return
		}
		w.origin.Config.Handler.ServeHTTP(out, in)
	}))
	t.Cleanup(w.front.Close)
	w.registry = serve(t, func(o *options) {
		o.authorize = func(_ context.Context, c api.Caller, a api.Action, _ string) (bool, error) {
			return c.Name == "test" || a == api.Pull, nil
		}
		o.metrics = w.reg
		o.upstream = &upstream.Options{
			Hosts: []upstream.Host{{Name: "origin.test", Endpoint: w.front.URL}, {Name: "nowhere.test", Endpoint: "http://127.0.0.1:1"}},
			TTL:   ttl, Transport: func(context.Context) http.RoundTripper { return http.DefaultTransport },
		}
	})
	return w
}

// outcomes returns how requests for the origin's images ended.
func (w *world) outcomes(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := w.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "registry_upstream_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			out[m.GetLabel()[0].GetValue()] += m.GetCounter().GetValue()
		}
	}
	return out
}

const there, here = "library/debian", "origin.test/library/debian"

func TestPullThrough(t *testing.T) {
	w := newWorld(t, time.Hour)
	d := w.origin.image(t, there, "12", "{}", "layer")
	layer := digest.FromString("layer")

	if a := w.must(t, 200, "HEAD", "/v2/"+here+"/manifests/12", nil); a.Header.Get("Docker-Content-Digest") != d.String() {
		t.Errorf("digest %q, want %q", a.Header.Get("Docker-Content-Digest"), d)
	}
	a := w.must(t, 200, "GET", "/v2/"+here+"/blobs/"+layer.String(), nil)
	if a.Body != "layer" || a.Header.Get("Content-Length") != "5" || a.Header.Get("Docker-Content-Digest") != layer.String() {
		t.Errorf("%q with %v", a.Body, a.Header)
	}
	if a := w.must(t, 206, "GET", "/v2/"+here+"/blobs/"+digest.FromString("{}").String(), nil, "Range: bytes=0-0"); a.Body != "{" {
		t.Errorf("a part of what was not stored: %q", a.Body)
	}

	// From here on nobody needs the origin.
	asked := w.asked.Load()
	w.front.Close()
	for _, path := range []string{"/manifests/12", "/manifests/" + d.String(), "/blobs/" + layer.String()} {
		w.must(t, 200, "GET", "/v2/"+here+path, nil)
		w.must(t, 200, "HEAD", "/v2/"+here+path, nil)
	}
	if w.asked.Load() != asked {
		t.Errorf("the origin was asked %d times for what is stored", w.asked.Load()-asked)
	}
	if got := w.outcomes(t); got["miss"] != 3 || got["hit"] < 6 || got["error"] != 0 {
		t.Errorf("outcomes %v", got)
	}
}

func TestPullThroughFollowsTags(t *testing.T) {
	w := newWorld(t, 0)
	w.origin.image(t, there, "12", "{}", "old")
	w.must(t, 200, "GET", "/v2/"+here+"/manifests/12", nil)
	d := w.origin.image(t, there, "12", "{}", "new")
	if a := w.must(t, 200, "HEAD", "/v2/"+here+"/manifests/12", nil); a.Header.Get("Docker-Content-Digest") != d.String() {
		t.Errorf("the tag moved to %s, and is served as %s", d, a.Header.Get("Docker-Content-Digest"))
	}
	// A tag that its origin removed stays.
	w.origin.must(t, http.StatusAccepted, "DELETE", "/v2/"+there+"/manifests/12", nil)
	w.must(t, 200, "HEAD", "/v2/"+here+"/manifests/12", nil)
	// So does one whose origin is gone.
	w.front.Close()
	w.must(t, 200, "HEAD", "/v2/"+here+"/manifests/12", nil)
	if got := w.outcomes(t); got["stale"] != 2 || got["miss"] != 2 {
		t.Errorf("outcomes %v", got)
	}
}

// TestPushedBase shows that an image made here under another registry's name is
// served while that cannot be reached, and without delay.
func TestPushedBase(t *testing.T) {
	w := newWorld(t, 0)
	d := w.image(t, "nowhere.test/library/debian", "12", "{}")
	for range 3 {
		if a := w.must(t, 200, "HEAD", "/v2/nowhere.test/library/debian/manifests/12", nil); a.Header.Get("Docker-Content-Digest") != d.String() {
			t.Errorf("digest %q", a.Header.Get("Docker-Content-Digest"))
		}
	}
}

// TestPushBaseByContainerd pushes such an image as BuildKit does, which first
// asks what is there.
func TestPushBaseByContainerd(t *testing.T) {
	w := newWorld(t, time.Hour)
	pushByContainerd(t, w.registry, "nowhere.test/library/debian:12", []byte("{}"), []byte("layer"))
	if a := w.do(t, "HEAD", "/v2/nowhere.test/library/debian/manifests/13", nil, basic("reader")...); a.Status != http.StatusBadGateway {
		t.Errorf("who may not push is told %d, want 502", a.Status)
	}
}

func TestPullThroughRefusals(t *testing.T) {
	w := newWorld(t, time.Hour)
	never := digest.FromString("never").String()
	for _, tc := range []struct {
		path   string
		status int
		code   string
		says   string
	}{
		{here + "/manifests/never", 404, "MANIFEST_UNKNOWN", "neither stored here nor at origin.test"},
		{here + "/manifests/" + never, 404, "MANIFEST_UNKNOWN", "origin.test"},
		{here + "/blobs/" + never, 404, "BLOB_UNKNOWN", "origin.test"},
		{"nowhere.test/library/debian/manifests/12", 502, "UNAVAILABLE", "nowhere.test cannot be reached"},
		{"nowhere.test/library/debian/blobs/" + never, 502, "UNAVAILABLE", "nowhere.test"},
		{"other.test/library/debian/manifests/12", 404, "MANIFEST_UNKNOWN", "other.test/library/debian:12"},
	} {
		a := w.do(t, "GET", "/v2/"+tc.path, nil)
		if a.Status != tc.status || a.Code != tc.code || !strings.Contains(a.Said, tc.says) {
			t.Errorf("%s: %d %s %q", tc.path, a.Status, a.Code, a.Said)
		}
	}
	if names, err := w.Store.Repositories(t.Context(), ""); len(names) > 0 || err != nil {
		t.Errorf("asking in vain leaves repositories %v, %v", names, err)
	}
}

// TestPullThroughOnce shows that many who want the same are served by one
// request to the origin, whole.
func TestPullThroughOnce(t *testing.T) {
	w := newWorld(t, time.Hour)
	large := strings.Repeat("0123456789abcdef", 1<<16)
	w.origin.image(t, there, "12", "{}", large)
	d := digest.FromString(large)
	before := w.asked.Load()
	var g errgroup.Group
	for range 12 {
		g.Go(func() error {
			if a := w.do(t, "GET", "/v2/"+here+"/blobs/"+d.String(), nil); a.Status != 200 || a.Body != large {
				return fmt.Errorf("status %d, %d bytes", a.Status, len(a.Body))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if n := w.asked.Load() - before; n != 2 { // how long it is, and for it
		t.Errorf("the origin was asked %d times", n)
	}
}

// TestPullThroughBroken shows that what arrives broken is neither served as
// whole nor stored.
func TestPullThroughBroken(t *testing.T) {
	text := strings.Repeat("content ", 10000)
	d := digest.FromString(text)
	for what, spoil := range map[string]func(http.ResponseWriter){
		"cut short": func(out http.ResponseWriter) {
			out.Header().Set("Content-Length", fmt.Sprint(len(text)))
			fmt.Fprint(out, text[:len(text)/2])
		},
		"other content": func(out http.ResponseWriter) { fmt.Fprint(out, strings.ToUpper(text)) },
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, time.Hour)
			w.origin.image(t, there, "12", "{}", text)
			broken := func(out http.ResponseWriter, in *http.Request) bool {
				if strings.Contains(in.URL.Path, "/blobs/") {
					spoil(out)
					return true
				}
				return false
			}
			w.spoil.Store(&broken)
			req, err := http.NewRequest("GET", w.URL+"/v2/"+here+"/blobs/"+d.String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.SetBasicAuth("test", "test")
			resp, err := w.Client().Do(req)
			if err == nil {
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err == nil && resp.StatusCode == 200 {
					t.Errorf("%d bytes were served as if they were whole", len(got))
				}
			}
			w.must(t, 200, "GET", "/v2/"+here+"/manifests/12", nil)
			if r, err := w.Store.Repo(here); err != nil {
				t.Fatal(err)
			} else if _, err := r.Stat(t.Context(), d); err == nil {
				t.Error("the broken blob is stored")
			}
			// Once the origin is well again, so is the copy.
			w.spoil.Store(nil)
			if a := w.must(t, 200, "GET", "/v2/"+here+"/blobs/"+d.String(), nil); a.Body != text {
				t.Errorf("%d bytes, want %d", len(a.Body), len(text))
			}
		})
	}
}
