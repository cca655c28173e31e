package store_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/emerald-platform/emerald/batteries/registry/internal/store"
)

// FuzzPut shows that whatever is pushed as a manifest is refused as invalid, or
// comes back byte for byte, can be collected around, and can be removed.
func FuzzPut(f *testing.F) {
	config := digest.FromString("{}")
	f.Add(v1.MediaTypeImageManifest, manifest(nil, config))
	f.Add("", manifest(&v1.Descriptor{Digest: config}, config))
	f.Add(v1.MediaTypeImageIndex, index(v1.Descriptor{Digest: config}))
	f.Add("application/vnd.docker.distribution.manifest.v2+json", []byte(`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","layers":[]}`))
	f.Add("application/vnd.docker.distribution.manifest.list.v2+json", []byte(`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[null]}`))
	f.Add("x", []byte(`{"subject":{"digest":"sha256:../../.."}}`))
	ctx := context.Background()
	s := open(f, f.TempDir())
	r, err := s.Repo("demo/a")
	if err != nil {
		f.Fatal(err)
	}
	if _, err := push(ctx, r, []byte("{}"), digest.SHA256); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, mediaType string, content []byte) {
		d, subject, err := r.Put(ctx, store.Pushed{MediaType: mediaType, Content: content, Tags: []string{"1"}})
		var missing *store.MissingError
		if errors.Is(err, store.ErrImageInvalid) || errors.As(err, &missing) {
			return
		}
		if err != nil {
			t.Fatalf("%q %q: %v is neither stored nor invalid", mediaType, content, err)
		}
		image, err := r.Image(ctx, d)
		if err != nil || !bytes.Equal(image.Content, content) {
			t.Fatalf("%q %q: came back as %+v, %v", mediaType, content, image, err)
		}
		if subject != "" {
			if found, err := r.Referrers(ctx, subject, ""); err != nil || len(found) != 1 {
				t.Errorf("%q: refers to %s, which knows of %v, %v", content, subject, found, err)
			}
		}
		if _, err := s.Collect(ctx, store.Retention{Grace: 1 << 60, Uploads: 1 << 60}); err != nil {
			t.Errorf("%q: the collector stumbles: %v", content, err)
		}
		if err := r.DeleteImage(ctx, d); err != nil {
			t.Errorf("%q: cannot be deleted: %v", content, err)
		}
	})
}
