package api_test

import (
	"bytes"
	"context"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// pushByContainerd pushes an image as containerd and BuildKit do, with a password
// they send only when asked for one. It returns the manifest.
func pushByContainerd(t *testing.T, r *registry, name string, config []byte, layers ...[]byte) (remotes.Resolver, []byte) {
	t.Helper()
	ctx := t.Context()
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(
		docker.WithPlainHTTP(docker.MatchAllHosts),
		docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthCreds(func(string) (string, string, error) {
			return "test", "token", nil
		}))),
	)})
	pusher, err := resolver.Pusher(ctx, strings.TrimPrefix(r.URL, "http://")+"/"+name)
	if err != nil {
		t.Fatal(err)
	}
	push := func(mediaType string, content []byte) {
		t.Helper()
		desc := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
		w, err := pusher.Push(ctx, desc)
		if err == nil {
			_, err = w.Write(content)
		}
		if err == nil {
			err = w.Commit(ctx, desc.Size, desc.Digest)
		}
		if err != nil {
			t.Fatalf("push %s: %v", mediaType, err)
		}
	}
	push(v1.MediaTypeImageConfig, config)
	for _, l := range layers {
		push(v1.MediaTypeImageLayer, l)
	}
	m := manifestOf(t, config, layers...)
	push(v1.MediaTypeImageManifest, m)
	return resolver, m
}

// TestContainerd pushes and pulls as containerd and BuildKit do.
func TestContainerd(t *testing.T) {
	ctx := t.Context()
	r := serve(t)
	layer := bytes.Repeat([]byte("layer "), 1<<18)
	name := strings.TrimPrefix(r.URL, "http://") + "/demo/a:1"
	resolver, m := pushByContainerd(t, r, "demo/a:1", []byte("{}"), layer)
	_, desc, err := resolver.Resolve(ctx, name)
	if err != nil || desc.Digest != digest.FromBytes(m) || desc.MediaType != v1.MediaTypeImageManifest {
		t.Fatalf("resolve: %+v, %v", desc, err)
	}
	fetcher, err := resolver.Fetcher(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	body, err := fetcher.Fetch(ctx, v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromBytes(layer), Size: int64(len(layer))})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, layer) {
		t.Errorf("pulled %d bytes, %v", len(got), err)
	}
}

// stock is the distribution project's own registry on a directory.
func stock(tb testing.TB, dir string) *registry {
	tb.Helper()
	config := &configuration.Configuration{Storage: configuration.Storage{
		"filesystem": configuration.Parameters{"rootdirectory": dir},
		"delete":     configuration.Parameters{"enabled": true},
	}}
	config.Log.Level = "panic"
	config.HTTP.Secret = "of a test"
	config.Catalog.MaxEntries = 100
	ctx, cancel := context.WithCancel(context.Background())
	srv := httptest.NewServer(handlers.NewApp(ctx, config))
	tb.Cleanup(func() { srv.Close(); cancel() })
	return &registry{Server: srv}
}

// TestWayOut shows that a stock registry serves what is stored here, and that
// this one serves what a stock registry stored.
func TestWayOut(t *testing.T) {
	dir := t.TempDir()
	ours := serve(t, func(o *options) { o.dir = dir })
	here := ours.image(t, "demo/a", "1", "{}", "layer")
	theirs := stock(t, dir)
	there := theirs.image(t, "demo/b", "1", "{}", "another layer")
	for name, r := range map[string]*registry{"ours": ours, "theirs": theirs} {
		for path, want := range map[string]string{
			"/v2/demo/a/manifests/1": here.String(), "/v2/demo/b/manifests/1": there.String(),
			"/v2/demo/a/blobs/" + digest.FromString("layer").String():         digest.FromString("layer").String(),
			"/v2/demo/b/blobs/" + digest.FromString("another layer").String(): digest.FromString("another layer").String(),
		} {
			a := r.must(t, 200, "GET", path, nil, "Accept: "+v1.MediaTypeImageManifest)
			if digest.FromString(a.Body).String() != want {
				t.Errorf("%s: %s is %s, want %s", name, path, digest.FromString(a.Body), want)
			}
		}
		if a := r.must(t, 200, "GET", "/v2/_catalog", nil); strings.TrimSpace(a.Body) != `{"repositories":["demo/a","demo/b"]}` {
			t.Errorf("%s: %s", name, a.Body)
		}
	}
}
