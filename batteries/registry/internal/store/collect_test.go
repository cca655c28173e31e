package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/emerald-platform/emerald/batteries/registry/internal/store"
)

// age makes every file of a store older, and the store forget what it knows of
// the present.
func age(t *testing.T, s *store.Store, dir string, by time.Duration) *store.Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	then := time.Now().Add(-by)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chtimes(path, then, then)
	})
	if err != nil {
		t.Fatal(err)
	}
	return open(t, dir)
}

func index(manifests ...v1.Descriptor) []byte {
	i := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: manifests}
	i.SchemaVersion = 2
	raw, _ := json.Marshal(i)
	return raw
}

func TestCollect(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s := open(t, dir)
	a, b := repo(t, s, "demo/a"), repo(t, s, "demo/b")

	tagged := mustPut(t, a, store.Pushed{Content: manifest(nil, mustPush(t, a, "tagged config"), mustPush(t, a, "tagged layer")), Tags: []string{"1"}})
	child := mustPut(t, a, store.Pushed{Content: manifest(nil, mustPush(t, a, "child config"))})
	raw := index(v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: child, Size: 1})
	whole := mustPut(t, a, store.Pushed{Content: raw, Tags: []string{"all"}})
	signature := mustPut(t, a, store.Pushed{Content: manifest(&v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: tagged, Size: 1}, mustPush(t, a, "signature"))})
	untagged := mustPut(t, a, store.Pushed{Content: manifest(nil, mustPush(t, a, "untagged config"))})
	orphan := mustPush(t, a, "orphan")
	// Known by a longer digest only: the sha256 one is not named by the manifest.
	long, err := push(ctx, a, []byte("long"), digest.SHA512)
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, a, store.Pushed{Content: manifest(nil, long), Tags: []string{"long"}})
	// Orphan here, needed there.
	shared := mustPush(t, a, "shared")
	if err := b.Mount(ctx, shared, "demo/a"); err != nil {
		t.Fatal(err)
	}
	mustPut(t, b, store.Pushed{Content: manifest(nil, shared), Tags: []string{"1"}})
	upload, err := a.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := upload.Close(); err != nil {
		t.Fatal(err)
	}

	collect := func(keep store.Retention) store.Collected {
		t.Helper()
		done, err := s.Collect(ctx, keep)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	day := store.Retention{Grace: 24 * time.Hour, Uploads: 24 * time.Hour}
	if got := collect(day); got != (store.Collected{}) {
		t.Errorf("a moment after the pushes %+v is removed", got)
	}

	s = age(t, s, dir, 48*time.Hour)
	a, b = repo(t, s, "demo/a"), repo(t, s, "demo/b")
	// Somebody is about to push an image of this one.
	wanted := mustPush(t, a, "wanted")
	s = age(t, s, dir, 48*time.Hour)
	a, b = repo(t, s, "demo/a"), repo(t, s, "demo/b")
	if _, err := a.Stat(ctx, wanted); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(store.Collected{Blobs: 1, Uploads: 1, Bytes: 6}, collect(day)); diff != "" {
		t.Errorf("removed after two days (-want +got):\n%s", diff)
	}
	for _, tc := range []struct {
		what string
		in   *store.Repo
		d    digest.Digest
		want error
	}{
		{"orphan", a, orphan, store.ErrBlobUnknown},
		{"shared, where nothing names it", a, shared, store.ErrBlobUnknown},
		{"shared, where an image names it", b, shared, nil},
		{"named by a longer digest", a, long, nil},
		{"just asked for", a, wanted, nil},
		{"of an untagged image", a, digest.FromString("untagged config"), nil},
		{"of a part of an index", a, digest.FromString("child config"), nil},
	} {
		if _, err := content(t, tc.in, tc.d); !errors.Is(err, tc.want) {
			t.Errorf("blob %s: %v, want %v", tc.what, err, tc.want)
		}
	}
	if _, err := a.Received(ctx, upload.ID()); !errors.Is(err, store.ErrUploadUnknown) {
		t.Errorf("the expired upload: %v, want ErrUploadUnknown", err)
	}

	day.Untagged = 24 * time.Hour
	if got := collect(day); got.Images != 1 {
		t.Errorf("%d images are removed, want the untagged one", got.Images)
	}
	for d, want := range map[digest.Digest]error{tagged: nil, child: nil, whole: nil, signature: nil, untagged: store.ErrImageUnknown} {
		if _, err := a.Image(ctx, d); !errors.Is(err, want) {
			t.Errorf("image %s: %v, want %v", d, err, want)
		}
	}
	if got := collect(day); got != (store.Collected{}) {
		t.Errorf("collecting again removes %+v", got)
	}

	// A repository goes with its last image.
	d, err := b.Resolve(ctx, "1")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteImage(ctx, d); err != nil {
		t.Fatal(err)
	}
	if names, err := s.Repositories(ctx, "demo"); err != nil || !cmp.Equal(names, []string{"demo/a"}) {
		t.Errorf("repositories %v, %v; want demo/a", names, err)
	}
	if err := b.Delete(ctx, shared); err != nil {
		t.Fatal(err)
	}
	collect(day)
	if _, err := os.Stat(filepath.Join(b.Path(s), "_manifests")); !os.IsNotExist(err) {
		t.Errorf("what is left of an empty repository: %v", err)
	}
}
