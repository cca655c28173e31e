package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/emerald-platform/emerald/batteries/registry/internal/api"
	"github.com/emerald-platform/emerald/batteries/registry/internal/store"
	"github.com/emerald-platform/emerald/batteries/registry/internal/upstream"
)

// registry is a running registry for tests, on loopback.
type registry struct {
	*httptest.Server
	Store *store.Store
	Up    *upstream.Puller
}

// options changes what serve makes.
type options struct {
	dir       string
	open      bool // to callers without a name
	authorize func(context.Context, api.Caller, api.Action, string) (bool, error)
	upstream  *upstream.Options
	quota     func(string) int64
	maxBlob   int64
	reserve   int64
	metrics   prometheus.Registerer
}

// serve runs a registry until the test ends. Callers are who their Basic user
// name says and may do everything, unless changed.
func serve(tb testing.TB, change ...func(*options)) *registry {
	tb.Helper()
	o := options{
		dir: tb.TempDir(), maxBlob: 1 << 30,
		authorize: func(context.Context, api.Caller, api.Action, string) (bool, error) { return true, nil },
	}
	for _, c := range change {
		c(&o)
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	s, err := store.Open(context.Background(), store.Options{Root: o.dir, Quota: o.quota, Log: quiet})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	opts := api.Options{
		Store: s, Authorize: o.authorize, Realm: "test", MaxBlob: o.maxBlob, Reserve: o.reserve, Log: quiet, Metrics: o.metrics,
		Authenticate: func(r *http.Request) (api.Caller, error) {
			user, _, ok := r.BasicAuth()
			if !ok && !o.open {
				return api.Caller{}, api.ErrUnauthenticated
			}
			return api.Caller{Name: user}, nil
		},
		Collect: func(ctx context.Context) (store.Collected, error) { return s.Collect(ctx, store.Retention{}) },
	}
	var h *api.Handler
	if o.upstream != nil {
		o.upstream.Log, o.upstream.MaxBlob = quiet, o.maxBlob
		o.upstream.Count = func(host string, outcome upstream.Outcome) { h.Counted(host, outcome) }
		opts.Upstream = upstream.New(*o.upstream)
	}
	h = api.New(opts)
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = h.Server()
	srv.Start()
	tb.Cleanup(srv.Close)
	return &registry{Server: srv, Store: s, Up: opts.Upstream}
}

// answer is what a registry said.
type answer struct {
	Status int
	Header http.Header
	Body   string
	Code   string // of the first error in the body
	Said   string // message of that
}

// do sends a request as user "test", unless the header has another idea. A body
// may be nil, a string or a reader, whose length is then unknown.
func (r *registry) do(tb testing.TB, method, path string, body any, header ...string) answer {
	tb.Helper()
	var in io.Reader
	switch b := body.(type) {
	case string:
		in = strings.NewReader(b)
	case []byte:
		in = bytes.NewReader(b)
	case io.Reader:
		in = io.MultiReader(b)
	}
	req, err := http.NewRequest(method, r.URL+path, in)
	if err != nil {
		tb.Fatal(err)
	}
	req.SetBasicAuth("test", "test")
	for _, h := range header {
		k, v, _ := strings.Cut(h, ": ")
		if v == "" {
			req.Header.Del(k)
		} else {
			req.Header.Set(k, v)
		}
	}
	resp, err := r.Client().Do(req)
	if err != nil {
		tb.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatalf("%s %s: %v", method, path, err)
	}
	a := answer{Status: resp.StatusCode, Header: resp.Header, Body: string(raw)}
	var said struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(raw, &said) == nil && len(said.Errors) > 0 {
		a.Code, a.Said = said.Errors[0].Code, said.Errors[0].Message
	}
	return a
}

func (r *registry) must(tb testing.TB, status int, method, path string, body any, header ...string) answer {
	tb.Helper()
	a := r.do(tb, method, path, body, header...)
	if a.Status != status {
		tb.Fatalf("%s %s: status %d, want %d: %s", method, path, a.Status, status, a.Body)
	}
	return a
}

// push pushes a blob in two steps, which every registry understands.
func (r *registry) push(tb testing.TB, repo, content string) digest.Digest {
	tb.Helper()
	d := digest.FromString(content)
	next, err := url.Parse(r.must(tb, http.StatusAccepted, "POST", "/v2/"+repo+"/blobs/uploads/", nil).Header.Get("Location"))
	if err != nil {
		tb.Fatal(err)
	}
	q := next.Query()
	q.Set("digest", d.String())
	r.must(tb, http.StatusCreated, "PUT", next.Path+"?"+q.Encode(), content)
	return d
}

// image pushes an image of these blobs and returns its digest.
func (r *registry) image(tb testing.TB, repo, tag string, blobs ...string) digest.Digest {
	tb.Helper()
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	for i, b := range blobs {
		desc := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: r.push(tb, repo, b), Size: int64(len(b))}
		if i == 0 {
			desc.MediaType = v1.MediaTypeImageConfig
			m.Config = desc
		} else {
			m.Layers = append(m.Layers, desc)
		}
	}
	raw, err := json.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	r.must(tb, http.StatusCreated, "PUT", "/v2/"+repo+"/manifests/"+tag, raw, "Content-Type: "+m.MediaType)
	return digest.FromBytes(raw)
}

func TestRefusals(t *testing.T) {
	may := map[string]bool{"reader get demo/a": true}
	r := serve(t, func(o *options) {
		o.maxBlob = 1000
		o.quota = func(ns string) int64 { return map[string]int64{"small": 100}[ns] }
		o.authorize = func(_ context.Context, c api.Caller, a api.Action, repo string) (bool, error) {
			switch c.Name {
			case "test":
				return true, nil
			case "unlucky":
				return false, fmt.Errorf("%w: connection refused", api.ErrUnavailable)
			}
			return may[c.Name+" "+string(a)+" "+repo], nil
		}
	})
	d := r.image(t, "demo/a", "1", "{}", "layer")
	never := digest.FromString("never")
	large := strings.Repeat("x", 1001)
	chunked := func(s string) io.Reader { return strings.NewReader(s) }
	up := func(repo string) string {
		return r.must(t, http.StatusAccepted, "POST", "/v2/"+repo+"/blobs/uploads/", nil).Header.Get("Location")
	}
	for _, tc := range []struct {
		what         string
		method, path string
		body         any
		header       []string
		status       int
		code, says   string
	}{
		{"nobody", "GET", "/v2/", nil, []string{"Authorization: "}, 401, "UNAUTHORIZED", "emerald registry login"},
		{"nobody anywhere", "GET", "/v2/demo/a/manifests/1", nil, []string{"Authorization: "}, 401, "UNAUTHORIZED", ""},
		{"nobody, no path", "GET", "/metrics", nil, []string{"Authorization: "}, 401, "UNAUTHORIZED", ""},
		{"a reader pushes", "POST", "/v2/demo/a/blobs/uploads/", nil, basic("reader"), 403, "DENIED", `verb update`},
		{"a reader deletes", "DELETE", "/v2/demo/a/manifests/1", nil, basic("reader"), 403, "DENIED", `verb delete`},
		{"a reader reads elsewhere", "GET", "/v2/demo/b/tags/list", nil, basic("reader"), 403, "DENIED", "demo/b"},
		{"a reader lists", "GET", "/v2/_catalog", nil, basic("reader"), 403, "DENIED", "all repositories"},
		{"a reader collects", "POST", api.CollectPath, nil, basic("reader"), 403, "DENIED", ""},
		{"the cluster is silent", "GET", "/v2/demo/a/tags/list", nil, basic("unlucky"), 503, "UNAVAILABLE", "try again"},
		{"no path", "GET", "/v2/demo", nil, nil, 404, "NAME_UNKNOWN", ""},
		{"no method", "PUT", "/v2/demo/a/tags/list", nil, nil, 405, "UNSUPPORTED", ""},
		{"no namespace", "GET", "/v2/debian/tags/list", nil, nil, 400, "NAME_INVALID", "NAMESPACE/IMAGE"},
		{"a bad name", "GET", "/v2/Demo/a/tags/list", nil, nil, 400, "NAME_INVALID", ""},
		{"a name that climbs", "GET", "/v2/demo/%2e%2e/%2e%2e/x/tags/list", nil, nil, 400, "NAME_INVALID", ""},
		{"a bad tag", "GET", "/v2/demo/a/manifests/-x", nil, nil, 400, "TAG_INVALID", ""},
		{"a bad digest", "GET", "/v2/demo/a/blobs/sha256:xyz", nil, nil, 400, "DIGEST_INVALID", ""},
		{"an unknown algorithm", "GET", "/v2/demo/a/blobs/sha384:" + strings.Repeat("a", 96), nil, nil, 400, "DIGEST_INVALID", ""},
		{"an unknown blob", "GET", "/v2/demo/a/blobs/" + never.String(), nil, nil, 404, "BLOB_UNKNOWN", "demo/a"},
		{"an unknown tag", "GET", "/v2/demo/a/manifests/2", nil, nil, 404, "MANIFEST_UNKNOWN", "demo/a:2"},
		{"an unknown image", "GET", "/v2/demo/a/manifests/" + never.String(), nil, nil, 404, "MANIFEST_UNKNOWN", ""},
		{"an unknown repository", "GET", "/v2/demo/never/tags/list", nil, nil, 404, "NAME_UNKNOWN", "demo/never"},
		{"an unknown upload", "PATCH", "/v2/demo/a/blobs/uploads/x", "x", nil, 404, "BLOB_UPLOAD_UNKNOWN", ""},
		{"a page of words", "GET", "/v2/demo/a/tags/list?n=many", nil, nil, 400, "PAGINATION_NUMBER_INVALID", ""},
		{"a negative page", "GET", "/v2/demo/a/tags/list?n=-1", nil, nil, 400, "PAGINATION_NUMBER_INVALID", ""},
		{"a large blob", "PATCH", up("demo/a"), large, nil, 413, "SIZE_INVALID", "maxBlob"},
		{"a large blob of unknown length", "PATCH", up("demo/a"), chunked(large), nil, 413, "SIZE_INVALID", "1000 bytes"},
		{"a large blob at once", "POST", "/v2/demo/a/blobs/uploads/?digest=" + digest.FromString(large).String(), large, nil, 413, "SIZE_INVALID", ""},
		{"over quota", "POST", "/v2/small/a/blobs/uploads/?digest=" + never.String(), strings.Repeat("x", 101), nil, 403, "DENIED", `quota of namespace "small"`},
		{"over quota of unknown length", "PATCH", up("small/a"), chunked(strings.Repeat("x", 101)), nil, 403, "DENIED", "100 bytes"},
		{"a wrong digest", "PUT", up("demo/a") + "?digest=" + never.String(), "something", nil, 400, "DIGEST_INVALID", ""},
		{"no digest", "PUT", up("demo/a"), "something", nil, 400, "DIGEST_INVALID", ""},
		{"a chunk too late", "PATCH", up("demo/a"), "x", []string{"Content-Range: 5-5"}, 416, "BLOB_UPLOAD_INVALID", "byte 5"},
		{"a chunk of another length", "PATCH", up("demo/a"), "x", []string{"Content-Range: 0-5"}, 416, "BLOB_UPLOAD_INVALID", ""},
		{"a range in the style of HTTP", "PATCH", up("demo/a"), "x", []string{"Content-Range: bytes 0-0/1"}, 416, "BLOB_UPLOAD_INVALID", "FIRST-LAST"},
		{"a large manifest", "PUT", "/v2/demo/a/manifests/2", strings.Repeat("x", store.MaxImage+1), nil, 413, "SIZE_INVALID", "4 MiB"},
		{"a large manifest of unknown length", "PUT", "/v2/demo/a/manifests/2", chunked(strings.Repeat("x", store.MaxImage+1)), nil, 413, "SIZE_INVALID", ""},
		{"no manifest", "PUT", "/v2/demo/a/manifests/2", "{", nil, 400, "MANIFEST_INVALID", ""},
		{"a manifest of another world", "PUT", "/v2/demo/a/manifests/2", "{}", []string{"Content-Type: text/html"}, 400, "MANIFEST_INVALID", ""},
		{"a manifest of a bad type", "PUT", "/v2/demo/a/manifests/2", "{}", []string{"Content-Type: ;"}, 400, "MANIFEST_INVALID", ""},
		{"a manifest under another digest", "PUT", "/v2/demo/a/manifests/" + never.String(), `{"schemaVersion":2,"layers":[]}`, nil, 400, "DIGEST_INVALID", ""},
		{"a manifest without its blobs", "PUT", "/v2/demo/b/manifests/1", r.must(t, 200, "GET", "/v2/demo/a/manifests/1", nil).Body, nil, 400, "MANIFEST_BLOB_UNKNOWN", "demo/b"},
		{"a tag in the query", "PUT", "/v2/demo/a/manifests/" + d.String() + "?tag=ok&tag=-x", r.must(t, 200, "GET", "/v2/demo/a/manifests/1", nil).Body, nil, 400, "TAG_INVALID", ""},
		{"mounting nonsense", "POST", "/v2/demo/b/blobs/uploads/?mount=x&from=demo/a", nil, nil, 400, "DIGEST_INVALID", ""},
	} {
		t.Run(tc.what, func(t *testing.T) {
			a := r.do(t, tc.method, tc.path, tc.body, tc.header...)
			if a.Status != tc.status || a.Code != tc.code || !strings.Contains(a.Said, tc.says) {
				t.Errorf("%d %s %q, want %d %s %q", a.Status, a.Code, a.Said, tc.status, tc.code, tc.says)
			}
			if (a.Header.Get("WWW-Authenticate") != "") != (tc.status == 401) {
				t.Errorf("WWW-Authenticate %q with status %d", a.Header.Get("WWW-Authenticate"), a.Status)
			}
		})
	}
	if a := r.do(t, "GET", "/v2/small/a/tags/list", nil); a.Status != 200 && a.Status != 404 {
		t.Errorf("what is full can still be read: status %d", a.Status)
	}
}

// basic is the header of a user.
func basic(user string) []string {
	req := &http.Request{Header: http.Header{}}
	req.SetBasicAuth(user, "x")
	return []string{"Authorization: " + req.Header.Get("Authorization")}
}

func TestDiskFull(t *testing.T) {
	r := serve(t, func(o *options) { o.reserve = 1 << 60 })
	a := r.do(t, "POST", "/v2/demo/a/blobs/uploads/", nil)
	if a.Status != http.StatusInsufficientStorage || !strings.Contains(a.Said, "emerald registry gc") {
		t.Errorf("status %d: %q", a.Status, a.Said)
	}
}

// TestMountKeepsSecrets shows that mounting tells nobody what others have.
func TestMountKeepsSecrets(t *testing.T) {
	r := serve(t, func(o *options) {
		o.authorize = func(_ context.Context, c api.Caller, _ api.Action, repo string) (bool, error) {
			return c.Name == "test" || strings.HasPrefix(repo, c.Name+"/"), nil
		}
	})
	d := r.push(t, "secret/a", "secret content")
	for _, from := range []string{"", "&from=secret/a", "&from=nowhere/a", "&from=" + strings.Repeat("%2e%2e/", 3)} {
		a := r.do(t, "POST", "/v2/demo/a/blobs/uploads/?mount="+d.String()+from, nil, basic("demo")...)
		if a.Status != http.StatusAccepted {
			t.Errorf("mount%s: status %d, want 202 whether or not it exists", from, a.Status)
		}
	}
	if a := r.do(t, "HEAD", "/v2/demo/a/blobs/"+d.String(), nil, basic("demo")...); a.Status != http.StatusNotFound {
		t.Errorf("the secret blob: status %d, want 404", a.Status)
	}
	if a := r.do(t, "POST", "/v2/secret/b/blobs/uploads/?mount="+d.String(), nil); a.Status != http.StatusCreated {
		t.Errorf("mount from the own namespace without saying where: status %d, want 201", a.Status)
	}
}

func TestListings(t *testing.T) {
	r := serve(t)
	for _, repo := range []string{"demo/b", "demo/a", "other/c"} {
		r.image(t, repo, "1", "{}")
	}
	for _, tag := range []string{"b", "a", "c"} {
		r.image(t, "demo/a", tag, "{}", tag)
	}
	get := func(path string) (string, string) {
		a := r.must(t, 200, "GET", path, nil)
		return a.Body, a.Header.Get("Link")
	}
	for _, tc := range []struct{ path, body, link string }{
		{"/v2/demo/a/tags/list", `{"name":"demo/a","tags":["1","a","b","c"]}`, ""},
		{"/v2/demo/a/tags/list?n=2", `{"name":"demo/a","tags":["1","a"]}`, `</v2/demo/a/tags/list?last=a&n=2>; rel="next"`},
		{"/v2/demo/a/tags/list?last=a&n=2", `{"name":"demo/a","tags":["b","c"]}`, ""},
		{"/v2/demo/a/tags/list?last=bb", `{"name":"demo/a","tags":["c"]}`, ""},
		{"/v2/demo/a/tags/list?n=0", `{"name":"demo/a","tags":[]}`, ""},
		{"/v2/_catalog", `{"repositories":["demo/a","demo/b","other/c"]}`, ""},
		{"/v2/_catalog?n=2", `{"repositories":["demo/a","demo/b"]}`, `</v2/_catalog?last=demo%2Fb&n=2>; rel="next"`},
		{"/v2/_catalog?last=demo%2Fb&n=2", `{"repositories":["other/c"]}`, ""},
		{"/v2/_catalog?namespace=demo&n=1", `{"repositories":["demo/a"]}`, `</v2/_catalog?last=demo%2Fa&n=1&namespace=demo>; rel="next"`},
		{"/v2/_catalog?namespace=none", `{"repositories":[]}`, ""},
	} {
		body, link := get(tc.path)
		if body != tc.body || link != tc.link {
			t.Errorf("%s:\n%s\nLink %s\nwant\n%s\nLink %s", tc.path, body, link, tc.body, tc.link)
		}
	}
}

// TestManyReferrers shows that a long listing comes in pages.
func TestManyReferrers(t *testing.T) {
	r := serve(t)
	subject := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("subject"), Size: 7}
	config := r.push(t, "demo/a", "{}")
	want := map[digest.Digest]bool{}
	for i := range 3 {
		raw, err := json.Marshal(v1.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Subject: &subject, ArtifactType: "a/b",
			Config: v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: config, Size: 2}, Layers: []v1.Descriptor{},
			Annotations: map[string]string{"large": strings.Repeat(fmt.Sprint(i), 2<<20)},
		})
		if err != nil {
			t.Fatal(err)
		}
		d := digest.FromBytes(raw)
		a := r.must(t, 201, "PUT", "/v2/demo/a/manifests/"+d.String(), raw)
		if a.Header.Get("OCI-Subject") != subject.Digest.String() {
			t.Errorf("OCI-Subject %q", a.Header.Get("OCI-Subject"))
		}
		want[d] = true
	}
	got, pages := map[digest.Digest]bool{}, 0
	for path := "/v2/demo/a/referrers/" + subject.Digest.String() + "?artifactType=a%2Fb"; path != ""; pages++ {
		a := r.must(t, 200, "GET", path, nil)
		var index v1.Index
		if err := json.Unmarshal([]byte(a.Body), &index); err != nil {
			t.Fatal(err)
		}
		if a.Header.Get("OCI-Filters-Applied") != "artifactType" || a.Header.Get("Content-Type") != v1.MediaTypeImageIndex {
			t.Errorf("headers %v", a.Header)
		}
		for _, m := range index.Manifests {
			got[m.Digest] = true
		}
		path = ""
		if target, _, ok := strings.Cut(strings.TrimPrefix(a.Header.Get("Link"), "<"), ">"); ok {
			path = target
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || pages != 3 {
		t.Errorf("%d pages (-want +got):\n%s", pages, diff)
	}
}

func TestConditions(t *testing.T) {
	r := serve(t)
	d := r.image(t, "demo/a", "1", "{}")
	blob := digest.FromString("{}")
	for path, tag := range map[string]digest.Digest{"/v2/demo/a/manifests/1": d, "/v2/demo/a/blobs/" + blob.String(): blob} {
		if a := r.do(t, "GET", path, nil, `If-None-Match: "`+tag.String()+`"`); a.Status != http.StatusNotModified || a.Body != "" {
			t.Errorf("%s when known: status %d", path, a.Status)
		}
		if a := r.do(t, "GET", path, nil, `If-None-Match: "x"`); a.Status != http.StatusOK {
			t.Errorf("%s when another is known: status %d", path, a.Status)
		}
	}
	if a := r.do(t, "GET", "/v2/demo/a/blobs/"+blob.String(), nil, "Range: bytes=1-1"); a.Status != http.StatusPartialContent || a.Body != "}" {
		t.Errorf("a part: status %d, %q", a.Status, a.Body)
	}
}

// TestBrokenUpload shows that what arrived before a client broke off can be gone
// on with.
func TestBrokenUpload(t *testing.T) {
	r := serve(t)
	location := r.must(t, http.StatusAccepted, "POST", "/v2/demo/a/blobs/uploads/", nil).Header.Get("Location")
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Length: 100\r\n\r\nhello", location, basic("test")[0])
	// The server has read it all when it waits for more; then the line goes dead.
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	a := r.must(t, http.StatusNoContent, "GET", location, nil)
	if a.Header.Get("Range") != "0-4" {
		t.Fatalf("Range %q after five bytes", a.Header.Get("Range"))
	}
	r.must(t, http.StatusAccepted, "PATCH", location, " world", "Content-Range: 5-10")
	d := digest.FromString("hello world")
	r.must(t, http.StatusCreated, "PUT", location+"?digest="+d.String(), nil)
	if a := r.must(t, 200, "GET", "/v2/demo/a/blobs/"+d.String(), nil); a.Body != "hello world" {
		t.Errorf("got %q", a.Body)
	}
}

func TestCollectByCommand(t *testing.T) {
	r := serve(t)
	d := r.push(t, "demo/a", "orphan")
	var done store.Collected
	if err := json.Unmarshal([]byte(r.must(t, 200, "POST", api.CollectPath, nil).Body), &done); err != nil {
		t.Fatal(err)
	}
	if done.Blobs != 1 || done.Bytes != 6 {
		t.Errorf("removed %+v", done)
	}
	r.must(t, 404, "HEAD", "/v2/demo/a/blobs/"+d.String(), nil)
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	r := serve(t, func(o *options) { o.metrics = reg })
	r.push(t, "demo/a", "12345")
	r.must(t, 404, "GET", "/v2/demo/a/manifests/1", nil)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			got[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for key, want := range map[string]float64{
		"registry_requests_total upload PUT 201": 1, "registry_requests_total manifest GET 404": 1,
		"registry_received_bytes_total": 5, "registry_held_bytes demo": 5,
	} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v; there are %v", key, got[key], want, got)
		}
	}
}
