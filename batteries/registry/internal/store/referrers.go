package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// describe makes the descriptor by which a manifest is listed among those that
// refer to its subject (distribution-spec 1.1, "Listing Referrers").
func describe(f fields, mediaType string, d digest.Digest, size int) v1.Descriptor {
	desc := v1.Descriptor{
		MediaType: mediaType, Digest: d, Size: int64(size),
		ArtifactType: f.ArtifactType, Annotations: f.Annotations,
	}
	if desc.ArtifactType == "" && f.Config != nil {
		desc.ArtifactType = f.Config.MediaType
	}
	return desc
}

// Referrers returns the descriptors of the manifests of the repository whose
// subject is d, in order of digest; those of one artifact type only unless it is
// "". A subject that was never pushed has none or some, like any other.
func (r *Repo) Referrers(ctx context.Context, d digest.Digest, artifactType string) ([]v1.Descriptor, error) {
	entries, err := r.s.disk.List(ctx, referrersDir(r.Name(), d))
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list what refers to %s in %q: %w", d, r.Name(), err)
	}
	var out []v1.Descriptor
	for _, entry := range entries {
		raw, err := r.s.disk.GetContent(ctx, entry)
		if notFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list what refers to %s in %q: %w", d, r.Name(), err)
		}
		var desc v1.Descriptor
		if err := json.Unmarshal(raw, &desc); err != nil {
			continue // the rest of a write that was cut short
		}
		if artifactType != "" && desc.ArtifactType != artifactType {
			continue
		}
		if _, err := r.s.target(ctx, r.Name(), image, desc.Digest); errors.Is(err, ErrBlobUnknown) {
			continue
		}
		out = append(out, desc)
	}
	slices.SortFunc(out, func(a, b v1.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return out, nil
}

// putReferrer notes that a manifest refers to a subject. The images of the
// repository must be locked.
func (r *Repo) putReferrer(ctx context.Context, subject digest.Digest, desc v1.Descriptor) error {
	raw, err := json.Marshal(desc)
	if err == nil {
		err = r.s.disk.PutContent(ctx, referrerPath(r.Name(), subject, desc.Digest), raw)
	}
	if err != nil {
		return fmt.Errorf("note that %s refers to %s in %q: %w", desc.Digest, subject, r.Name(), err)
	}
	return nil
}

// dropReferrer forgets what putReferrer noted. The gate must be held for
// writing.
func (r *Repo) dropReferrer(ctx context.Context, subject, referrer digest.Digest) error {
	err := r.s.disk.Delete(ctx, referrerPath(r.Name(), subject, referrer))
	if err != nil && !notFound(err) {
		return fmt.Errorf("forget that %s refers to %s in %q: %w", referrer, subject, r.Name(), err)
	}
	return nil
}
