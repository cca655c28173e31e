package api_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func manifestOf(tb testing.TB, config []byte, layers ...[]byte) []byte {
	tb.Helper()
	m := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
	}
	for _, l := range layers {
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromBytes(l), Size: int64(len(l))})
	}
	raw, err := json.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// sideBySide runs a benchmark on this registry and on the distribution project's
// own one.
func sideBySide(b *testing.B, run func(*testing.B, *registry)) {
	b.Run("emerald", func(b *testing.B) { run(b, serve(b)) })
	b.Run("distribution", func(b *testing.B) { run(b, stock(b, b.TempDir())) })
}

// send is do without what only tests need.
func send(b *testing.B, r *registry, method, url string, body []byte, status int) *http.Response {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	req.SetBasicAuth("test", "test")
	resp, err := r.Client().Do(req)
	if err != nil {
		b.Fatal(err)
	}
	if resp.StatusCode != status {
		raw, _ := io.ReadAll(resp.Body)
		b.Fatalf("%s %s: status %d: %s", method, url, resp.StatusCode, raw)
	}
	return resp
}

func drain(b *testing.B, resp *http.Response, into []byte) {
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, into); err != nil {
		b.Fatal(err)
	}
	resp.Body.Close()
}

// BenchmarkPush pushes blobs as docker does: POST, PATCH, PUT.
func BenchmarkPush(b *testing.B) {
	for _, size := range []int{16 << 10, 64 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			sideBySide(b, func(b *testing.B, r *registry) {
				content := make([]byte, size)
				b.SetBytes(int64(size))
				for i := 0; b.Loop(); i++ {
					b.StopTimer()
					binary.LittleEndian.PutUint64(content, uint64(i)) // a new blob
					d := digest.FromBytes(content)
					b.StartTimer()
					resp := send(b, r, "POST", r.URL+"/v2/demo/a/blobs/uploads/", nil, 202)
					resp.Body.Close()
					next, err := resp.Location()
					if err != nil {
						b.Fatal(err)
					}
					resp = send(b, r, "PATCH", next.String(), content, 202)
					resp.Body.Close()
					if next, err = resp.Location(); err != nil {
						b.Fatal(err)
					}
					q := next.Query()
					q.Set("digest", d.String())
					next.RawQuery = q.Encode()
					send(b, r, "PUT", next.String(), nil, 201).Body.Close()
				}
			})
		})
	}
}

// BenchmarkPull pulls one blob again and again.
func BenchmarkPull(b *testing.B) {
	for _, size := range []int{16 << 10, 64 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			sideBySide(b, func(b *testing.B, r *registry) {
				content := string(make([]byte, size))
				d := r.push(b, "demo/a", content)
				buf := make([]byte, 256<<10)
				b.SetBytes(int64(size))
				for b.Loop() {
					drain(b, send(b, r, "GET", r.URL+"/v2/demo/a/blobs/"+d.String(), nil, 200), buf)
				}
			})
		})
	}
}

// BenchmarkManifest resolves a tag, as every start of a pod does.
func BenchmarkManifest(b *testing.B) {
	sideBySide(b, func(b *testing.B, r *registry) {
		config, layer := []byte("{}"), []byte("layer")
		r.push(b, "demo/a", string(config))
		r.push(b, "demo/a", string(layer))
		r.must(b, 201, "PUT", "/v2/demo/a/manifests/1", manifestOf(b, config, layer), "Content-Type: "+v1.MediaTypeImageManifest)
		for b.Loop() {
			req, _ := http.NewRequest("HEAD", r.URL+"/v2/demo/a/manifests/1", nil)
			req.SetBasicAuth("test", "test")
			req.Header.Set("Accept", v1.MediaTypeImageManifest)
			resp, err := r.Client().Do(req)
			if err != nil || resp.StatusCode != 200 {
				b.Fatal(err, resp)
			}
			resp.Body.Close()
		}
	})
}
