package store_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/emerald-platform/emerald/batteries/registry/internal/store"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func open(t testing.TB, dir string, change ...func(*store.Options)) *store.Store {
	t.Helper()
	opts := store.Options{Root: dir, Log: quiet}
	for _, c := range change {
		c(&opts)
	}
	s, err := store.Open(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func repo(t testing.TB, s *store.Store, name string) *store.Repo {
	t.Helper()
	r, err := s.Repo(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// push uploads a blob and returns its digest by the algorithm.
func push(ctx context.Context, r *store.Repo, content []byte, a digest.Algorithm) (digest.Digest, error) {
	u, err := r.Start(ctx)
	if err != nil {
		return "", err
	}
	defer u.Close()
	if err := u.Append(bytes.NewReader(content)); err != nil {
		return "", err
	}
	d := a.FromBytes(content)
	return d, u.Commit(ctx, d)
}

func mustPush(t testing.TB, r *store.Repo, content string) digest.Digest {
	t.Helper()
	d, err := push(context.Background(), r, []byte(content), digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func manifest(subject *v1.Descriptor, blobs ...digest.Digest) []byte {
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Subject: subject}
	m.SchemaVersion = 2
	for i, d := range blobs {
		desc := v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: d, Size: 1}
		if i == 0 {
			desc.MediaType = v1.MediaTypeImageConfig
			m.Config = desc
		} else {
			m.Layers = append(m.Layers, desc)
		}
	}
	raw, _ := json.Marshal(m)
	return raw
}

func mustPut(t testing.TB, r *store.Repo, p store.Pushed) digest.Digest {
	t.Helper()
	d, _, err := r.Put(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func content(t testing.TB, r *store.Repo, d digest.Digest) (string, error) {
	t.Helper()
	b, err := r.Open(context.Background(), d)
	if err != nil {
		return "", err
	}
	defer b.Close()
	raw, err := io.ReadAll(b)
	return string(raw), err
}

func TestBlobs(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir())
	a, b := repo(t, s, "demo/a"), repo(t, s, "demo/b")
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		for _, text := range []string{"", "some content"} {
			d, err := push(ctx, a, []byte(text), algorithm)
			if err != nil {
				t.Fatalf("push %q as %s: %v", text, algorithm, err)
			}
			if got, err := content(t, a, d); err != nil || got != text {
				t.Errorf("%s of %q = %q, %v", algorithm, text, got, err)
			}
			if _, err := b.Stat(ctx, d); !errors.Is(err, store.ErrBlobUnknown) {
				t.Errorf("another repository: %v, want ErrBlobUnknown", err)
			}
			if err := b.Mount(ctx, d, "demo/a"); err != nil {
				t.Errorf("mount %s: %v", d, err)
			}
			if err := a.Delete(ctx, d); err != nil {
				t.Errorf("delete %s: %v", d, err)
			}
			if err := a.Delete(ctx, d); !errors.Is(err, store.ErrBlobUnknown) {
				t.Errorf("delete again: %v, want ErrBlobUnknown", err)
			}
			if got, err := content(t, b, d); err != nil || got != text {
				t.Errorf("mounted %s of %q = %q, %v", algorithm, text, got, err)
			}
		}
	}
	if err := a.Mount(ctx, digest.FromString("never"), "demo/b"); !errors.Is(err, store.ErrBlobUnknown) {
		t.Errorf("mount what nobody has: %v, want ErrBlobUnknown", err)
	}
}

func TestUploads(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir())
	r := repo(t, s, "demo/a")

	u, err := r.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Resume(ctx, u.ID()); !errors.Is(err, store.ErrUploadBusy) {
		t.Errorf("a second writer: %v, want ErrUploadBusy", err)
	}
	if err := u.Append(strings.NewReader("one ")); err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Received(ctx, u.ID()); n != 4 || err != nil {
		t.Errorf("received %d, %v; want 4", n, err)
	}
	for _, id := range []string{"", "..", "../../x", "00000000-0000-0000-0000-000000000000"} {
		if _, err := r.Resume(ctx, id); !errors.Is(err, store.ErrUploadUnknown) {
			t.Errorf("resume %q: %v, want ErrUploadUnknown", id, err)
		}
		if _, err := r.Received(ctx, id); !errors.Is(err, store.ErrUploadUnknown) {
			t.Errorf("ask for %q: %v, want ErrUploadUnknown", id, err)
		}
	}
	if _, err := repo(t, s, "demo/b").Resume(ctx, u.ID()); !errors.Is(err, store.ErrUploadUnknown) {
		t.Errorf("resume from another repository: %v, want ErrUploadUnknown", err)
	}

	// What a process that was killed left behind is gone on with: its state of
	// the digest is not.
	if err := os.RemoveAll(filepath.Join(r.Path(s), "_uploads", u.ID(), "hashstates")); err != nil {
		t.Fatal(err)
	}
	if u, err = r.Resume(ctx, u.ID()); err != nil {
		t.Fatal(err)
	}
	if err := u.Append(strings.NewReader("two")); err != nil {
		t.Fatal(err)
	}
	d := digest.FromString("one two")
	if err := u.Commit(ctx, d); err != nil {
		t.Fatal(err)
	}
	if got, err := content(t, r, d); got != "one two" || err != nil {
		t.Errorf("the resumed upload is %q, %v", got, err)
	}
	if _, err := r.Resume(ctx, u.ID()); !errors.Is(err, store.ErrUploadUnknown) {
		t.Errorf("resume what was committed: %v, want ErrUploadUnknown", err)
	}

	if u, err = r.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := u.Append(strings.NewReader("wrong")); err != nil {
		t.Fatal(err)
	}
	if err := u.Commit(ctx, digest.FromString("right")); !errors.Is(err, store.ErrDigestInvalid) {
		t.Errorf("commit under a wrong digest: %v, want ErrDigestInvalid", err)
	}
	if _, err := r.Stat(ctx, digest.FromString("right")); !errors.Is(err, store.ErrBlobUnknown) {
		t.Errorf("content under a wrong digest: %v, want ErrBlobUnknown", err)
	}
	if u, err = r.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := u.Cancel(ctx); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(r.Path(s), "_uploads", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestImages(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir())
	r := repo(t, s, "demo/a")
	config, layer := mustPush(t, r, "{}"), mustPush(t, r, "layer")
	raw := manifest(nil, config, layer)

	if _, _, err := r.Put(ctx, store.Pushed{Content: []byte("no json")}); !errors.Is(err, store.ErrImageInvalid) {
		t.Errorf("no manifest: %v, want ErrImageInvalid", err)
	}
	if _, _, err := r.Put(ctx, store.Pushed{MediaType: v1.MediaTypeImageIndex, Content: raw}); !errors.Is(err, store.ErrImageInvalid) {
		t.Errorf("a manifest called an index: %v, want ErrImageInvalid", err)
	}
	if _, _, err := r.Put(ctx, store.Pushed{Content: raw, Digest: digest.FromString("x")}); !errors.Is(err, store.ErrDigestInvalid) {
		t.Errorf("a wrong digest: %v, want ErrDigestInvalid", err)
	}
	var missing *store.MissingError
	if _, _, err := r.Put(ctx, store.Pushed{Content: manifest(nil, config, digest.FromString("never pushed"))}); !errors.As(err, &missing) ||
		!cmp.Equal(missing.Digests, []digest.Digest{digest.FromString("never pushed")}) {
		t.Errorf("a missing layer: %v, want a MissingError that names it", err)
	}

	d := mustPut(t, r, store.Pushed{Content: raw, Tags: []string{"one", "two"}})
	long := mustPut(t, r, store.Pushed{Content: raw, Digest: digest.SHA512.FromBytes(raw), Tags: []string{"long"}})
	for _, by := range []digest.Digest{d, long} {
		image, err := r.Image(ctx, by)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&store.Image{MediaType: v1.MediaTypeImageManifest, Digest: by, Content: raw}, image); diff != "" {
			t.Errorf("image (-want +got):\n%s", diff)
		}
	}
	if got, err := r.Resolve(ctx, "long"); got != long || err != nil {
		t.Errorf("tag long = %s, %v; want the digest it was pushed by", got, err)
	}
	if tags, more, err := r.Tags(ctx, 2, ""); !cmp.Equal(tags, []string{"long", "one"}) || !more || err != nil {
		t.Errorf("first two tags = %v, %v, %v", tags, more, err)
	}
	if tags, more, err := r.Tags(ctx, 2, "long"); !cmp.Equal(tags, []string{"one", "two"}) || more || err != nil {
		t.Errorf("next two tags = %v, %v, %v", tags, more, err)
	}

	if err := r.Untag(ctx, "two"); err != nil {
		t.Fatal(err)
	}
	if err := r.Untag(ctx, "two"); !errors.Is(err, store.ErrImageUnknown) {
		t.Errorf("untag again: %v, want ErrImageUnknown", err)
	}
	if err := r.DeleteImage(ctx, long); err != nil {
		t.Fatal(err)
	}
	for _, by := range []digest.Digest{d, long} {
		if _, err := r.Image(ctx, by); !errors.Is(err, store.ErrImageUnknown) {
			t.Errorf("deleted image by %s: %v, want ErrImageUnknown", by.Algorithm(), err)
		}
	}
	if tags, _, err := r.Tags(ctx, -1, ""); len(tags) > 0 || err != nil {
		t.Errorf("tags of a deleted image = %v, %v", tags, err)
	}
	if _, _, err := repo(t, s, "demo/never").Tags(ctx, -1, ""); !errors.Is(err, store.ErrRepositoryUnknown) {
		t.Errorf("tags of no repository: %v, want ErrRepositoryUnknown", err)
	}
}

func TestReferrers(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir())
	r := repo(t, s, "demo/a")
	config := mustPush(t, r, "{}")
	subject := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("not here yet"), Size: 3}
	raw := manifest(&subject, config)
	d, said, err := r.Put(ctx, store.Pushed{Content: raw})
	if err != nil || said != subject.Digest {
		t.Fatalf("subject %q, %v", said, err)
	}
	want := []v1.Descriptor{{MediaType: v1.MediaTypeImageManifest, Digest: d, Size: int64(len(raw)), ArtifactType: v1.MediaTypeImageConfig}}
	for kind, want := range map[string][]v1.Descriptor{"": want, v1.MediaTypeImageConfig: want, "application/other": nil} {
		got, err := r.Referrers(ctx, subject.Digest, kind)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("referrers of type %q: %v (-want +got):\n%s", kind, err, diff)
		}
	}
	if err := r.DeleteImage(ctx, d); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Referrers(ctx, subject.Digest, ""); len(got) > 0 || err != nil {
		t.Errorf("referrers after the deletion = %v, %v", got, err)
	}
}

func TestNames(t *testing.T) {
	s := open(t, t.TempDir())
	for _, name := range []string{
		"", "A/b", "a/B", "/a", "a/", "a//b", "..", "a/../b", "a/_uploads", "-a", "a-", "a..b", "localhost:5000/a", "a b", "a/" + strings.Repeat("x", 255), "a\x00b",
	} {
		if _, err := s.Repo(name); !errors.Is(err, store.ErrNameInvalid) {
			t.Errorf("name %q: %v, want ErrNameInvalid", name, err)
		}
	}
	for _, name := range []string{"a", "a/b", "docker.io/library/debian", "a/b__c/d-e.f", "a/manifests", "a/blobs/uploads"} {
		if _, err := s.Repo(name); err != nil {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func TestQuota(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	limit := func(o *store.Options) {
		o.Quota = func(ns string) int64 { return map[string]int64{"small": 1000}[ns] }
	}
	s := open(t, dir, limit)
	a, b := repo(t, s, "small/a"), repo(t, s, "small/b")
	d := mustPush(t, a, strings.Repeat("x", 600))
	if err := b.Mount(ctx, d, "small/a"); err != nil {
		t.Fatal(err)
	}
	if _, err := push(ctx, b, []byte(strings.Repeat("x", 600)), digest.SHA512); err != nil {
		t.Fatal(err)
	}
	if got := s.Used("small"); got != 600 {
		t.Errorf("used %d bytes by three links to the same 600", got)
	}
	if room, err := s.Room("small"); room != 400 || err != nil {
		t.Errorf("room %d, %v; want 400", room, err)
	}
	if room, err := s.Room("large"); room != -1 || err != nil {
		t.Errorf("room without a limit %d, %v; want -1", room, err)
	}
	mustPush(t, a, strings.Repeat("y", 400))
	var full *store.QuotaError
	if _, err := s.Room("small"); !errors.As(err, &full) || full.Used != 1000 || full.Limit != 1000 {
		t.Errorf("room when full: %v, want a QuotaError", err)
	}
	if err := a.Mount(ctx, d, "small/b"); !errors.As(err, &full) {
		t.Errorf("mount when full: %v, want a QuotaError", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s = open(t, dir, limit); s.Used("small") != 1000 {
		t.Errorf("used %d bytes after a restart, want 1000", s.Used("small"))
	}
	for _, r := range []*store.Repo{repo(t, s, "small/a"), repo(t, s, "small/b")} {
		if err := r.Delete(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
	if err := repo(t, s, "small/b").Delete(ctx, digest.SHA512.FromString(strings.Repeat("x", 600))); err != nil {
		t.Fatal(err)
	}
	if got := s.Used("small"); got != 400 {
		t.Errorf("used %d bytes after the last link went, want 400", got)
	}
}

func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := store.Open(context.Background(), store.Options{Root: dir, Log: quiet}); err == nil || !strings.Contains(err.Error(), "another registry") {
		t.Errorf("a second store on the directory: %v", err)
	}
}

// TestTogether pushes, deletes and collects all at once, and finds every image
// whole that was acknowledged and not deleted.
func TestTogether(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s := open(t, dir)
	stop := make(chan struct{})
	var collecting errgroup.Group
	collecting.Go(func() error {
		for {
			select {
			case <-stop:
				return nil
			default:
			}
			if _, err := s.Collect(ctx, store.Retention{Uploads: time.Hour, Untagged: time.Nanosecond}); err != nil {
				return err
			}
		}
	})
	var pushing errgroup.Group
	want := make([]map[string]digest.Digest, 8)
	for w := range want {
		want[w] = map[string]digest.Digest{}
		pushing.Go(func() error {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			for i := range 40 {
				// Few repositories and few layers, so that workers meet.
				name := fmt.Sprintf("demo/r%d", rnd.IntN(3))
				r, err := s.Repo(name)
				if err != nil {
					return err
				}
				tag := fmt.Sprintf("w%d-%d", w, rnd.IntN(5))
				d, err := pushImage(ctx, r, tag, fmt.Sprintf("layer %d", rnd.IntN(4)), fmt.Sprintf("%d.%d", w, i))
				if err != nil {
					return err
				}
				want[w][name+":"+tag] = d
				if rnd.IntN(3) == 0 {
					if err := r.Untag(ctx, tag); err != nil {
						return err
					}
					delete(want[w], name+":"+tag)
				}
			}
			return nil
		})
	}
	if err := pushing.Wait(); err != nil {
		t.Error(err)
	}
	close(stop)
	if err := collecting.Wait(); err != nil {
		t.Error(err)
	}
	whole(t, s, want...)
	held := s.Held()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	whole(t, s, want...)
	if diff := cmp.Diff(held, s.Held()); diff != "" {
		t.Errorf("what is held, in memory and on the disk (-memory +disk):\n%s", diff)
	}
}

// pushImage pushes an image as clients do: blobs that are there are not sent
// again. A client that lost a race with the collector begins again.
func pushImage(ctx context.Context, r *store.Repo, tag string, blobs ...string) (digest.Digest, error) {
	for {
		var digests []digest.Digest
		for _, b := range blobs {
			d := digest.FromString(b)
			if _, err := r.Stat(ctx, d); errors.Is(err, store.ErrBlobUnknown) {
				if _, err := push(ctx, r, []byte(b), digest.SHA256); err != nil {
					return "", err
				}
			} else if err != nil {
				return "", err
			}
			digests = append(digests, d)
		}
		d, _, err := r.Put(ctx, store.Pushed{Content: manifest(nil, digests...), Tags: []string{tag}})
		var missing *store.MissingError
		if errors.As(err, &missing) {
			continue
		}
		return d, err
	}
}

// whole checks that images are there with everything they name.
func whole(t *testing.T, s *store.Store, images ...map[string]digest.Digest) {
	t.Helper()
	for _, some := range images {
		for name, want := range some {
			repository, tag, _ := strings.Cut(name, ":")
			r := repo(t, s, repository)
			d, err := r.Resolve(context.Background(), tag)
			if err != nil || d != want {
				t.Errorf("%s is %s, %v; want %s", name, d, err, want)
				continue
			}
			image, err := r.Image(context.Background(), d)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			var m v1.Manifest
			if err := json.Unmarshal(image.Content, &m); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			for _, desc := range append(m.Layers, m.Config) {
				if got, err := content(t, r, desc.Digest); err != nil || digest.FromString(got) != desc.Digest {
					t.Errorf("%s names %s, which is %q, %v", name, desc.Digest, got, err)
				}
			}
		}
	}
}
