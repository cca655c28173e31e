package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/manifest/manifestlist"
	"github.com/distribution/distribution/v3/manifest/ocischema"
	_ "github.com/distribution/distribution/v3/manifest/schema2" // understood by UnmarshalManifest
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is a manifest or an index, as it was pushed.
type Image struct {
	MediaType string
	Digest    digest.Digest // by which it was asked for, or its tag says
	Content   []byte
}

// Resolve returns the digest that a tag names, or [ErrImageUnknown].
func (r *Repo) Resolve(ctx context.Context, tag string) (digest.Digest, error) {
	repo, err := r.storage(ctx)
	if err != nil {
		return "", err
	}
	desc, err := repo.Tags(ctx).Get(ctx, tag)
	var unknown distribution.ErrTagUnknown
	if errors.As(err, &unknown) {
		err = ErrImageUnknown
	}
	if err != nil {
		return "", fmt.Errorf("look for tag %q of %q: %w", tag, r.Name(), err)
	}
	return desc.Digest, nil
}

// Image returns the manifest of a digest, or [ErrImageUnknown].
func (r *Repo) Image(ctx context.Context, d digest.Digest) (*Image, error) {
	target, err := r.s.target(ctx, r.Name(), image, d)
	if errors.Is(err, ErrBlobUnknown) {
		err = ErrImageUnknown
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest %s of %q: %w", d, r.Name(), err)
	}
	repo, err := r.storage(ctx)
	if err != nil {
		return nil, err
	}
	manifests, err := repo.Manifests(ctx)
	if err != nil {
		return nil, fmt.Errorf("open repository %q: %w", r.Name(), err)
	}
	m, err := manifests.Get(ctx, target)
	var unknown distribution.ErrManifestUnknownRevision
	if errors.As(err, &unknown) {
		err = ErrImageUnknown
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest %s of %q: %w", d, r.Name(), err)
	}
	mediaType, content, err := m.Payload()
	if err != nil {
		return nil, fmt.Errorf("read manifest %s of %q: %w", d, r.Name(), err)
	}
	return &Image{MediaType: mediaType, Digest: d, Content: content}, nil
}

// Pushed is a manifest to be stored.
type Pushed struct {
	MediaType string // "" means what the content says
	Content   []byte
	Digest    digest.Digest // "" means its sha256 digest
	Tags      []string
	// Sparse says that blobs it names may be missing, as in a copy of another
	// registry's repository, which is filled when somebody asks.
	Sparse bool
}

// fields are what this package reads in a manifest or an index itself.
type fields struct {
	Schema       int               `json:"schemaVersion"`
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Config       *v1.Descriptor    `json:"config"`
	Manifests    []json.RawMessage `json:"manifests"`
	Subject      *v1.Descriptor    `json:"subject"`
	Annotations  map[string]string `json:"annotations"`
}

// read understands a manifest, or returns an error that is [ErrImageInvalid].
func read(mediaType string, content []byte) (distribution.Manifest, fields, string, error) {
	var f fields
	if err := json.Unmarshal(content, &f); err != nil {
		return nil, f, "", fmt.Errorf("%w: %w", ErrImageInvalid, err)
	}
	switch {
	case mediaType != "":
	case f.MediaType != "":
		mediaType = f.MediaType
	case f.Manifests != nil:
		mediaType = v1.MediaTypeImageIndex
	default:
		mediaType = v1.MediaTypeImageManifest
	}
	m, _, err := distribution.UnmarshalManifest(mediaType, content)
	if err != nil {
		return nil, f, "", fmt.Errorf("%w: %w", ErrImageInvalid, err)
	}
	_, isList := m.(*manifestlist.DeserializedManifestList)
	_, isIndex := m.(*ocischema.DeserializedImageIndex)
	switch {
	case f.Schema != 2:
		return nil, f, "", fmt.Errorf("%w: its schemaVersion is %d, not 2", ErrImageInvalid, f.Schema)
	case (isList || isIndex) && f.Manifests == nil:
		return nil, f, "", fmt.Errorf("%w: an index without manifests", ErrImageInvalid)
	}
	if f.Subject != nil && f.Subject.Digest.Validate() != nil {
		return nil, f, "", fmt.Errorf("%w: the digest of its subject is malformed", ErrImageInvalid)
	}
	if mediaType, _, err = m.Payload(); err != nil {
		return nil, f, "", fmt.Errorf("%w: %w", ErrImageInvalid, err)
	}
	return m, f, mediaType, nil
}

// Put stores a manifest and tags it, and returns once that would survive a power
// loss. It returns its digest and that of its subject, "" without one. Errors
// are [ErrImageInvalid], [ErrDigestInvalid], *[MissingError] or *[QuotaError].
func (r *Repo) Put(ctx context.Context, p Pushed) (d, subject digest.Digest, err error) {
	if len(p.Content) > MaxImage {
		return "", "", fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrImageInvalid, len(p.Content), MaxImage)
	}
	m, f, mediaType, err := read(p.MediaType, p.Content)
	if err != nil {
		return "", "", err
	}
	d = p.Digest
	if d == "" {
		d = digest.FromBytes(p.Content)
	}
	if d.Validate() != nil || d.Algorithm().FromBytes(p.Content) != d {
		return "", "", fmt.Errorf("store manifest as %s: %w", d, ErrDigestInvalid)
	}
	if _, err := r.s.Room(r.Namespace()); err != nil {
		return "", "", err
	}
	references := make([]digest.Digest, 0, 8)
	for _, ref := range m.References() {
		references = append(references, ref.Digest)
	}

	unlock := r.lockImages()
	defer unlock()
	target, err := r.putManifest(ctx, m, p.Sparse)
	if err != nil {
		return "", "", err
	}
	// A collection that has read the manifests already must learn of this one
	// before it removes anything.
	r.s.touch(references...)
	r.s.ledger.add(r.Name(), image, target, target, int64(len(p.Content)))
	if d != target {
		if err := r.link(ctx, image, target, int64(len(p.Content)), d); err != nil {
			return "", "", err
		}
	}
	if f.Subject != nil {
		subject = f.Subject.Digest
		if err := r.putReferrer(ctx, subject, describe(f, mediaType, d, len(p.Content))); err != nil {
			return "", "", err
		}
	}
	for _, tag := range p.Tags {
		if err := r.tag(ctx, tag, d); err != nil {
			return "", "", err
		}
	}
	return d, subject, nil
}

// putManifest stores the content of a manifest and returns its sha256 digest.
func (r *Repo) putManifest(ctx context.Context, m distribution.Manifest, sparse bool) (digest.Digest, error) {
	repo, err := r.storage(ctx)
	if err != nil {
		return "", err
	}
	var options []distribution.ManifestServiceOption
	if sparse {
		options = append(options, storage.SkipLayerVerification())
	}
	manifests, err := repo.Manifests(ctx, options...)
	if err != nil {
		return "", fmt.Errorf("open repository %q: %w", r.Name(), err)
	}
	target, err := manifests.Put(ctx, m)
	var broken distribution.ErrManifestVerification
	if errors.As(err, &broken) {
		missing := &MissingError{}
		for _, e := range broken {
			var blob distribution.ErrManifestBlobUnknown
			if errors.As(e, &blob) {
				missing.Digests = append(missing.Digests, blob.Digest)
			}
		}
		if len(missing.Digests) == 0 {
			return "", fmt.Errorf("%w: %w", ErrImageInvalid, broken)
		}
		return "", missing
	}
	if err != nil {
		return "", fmt.Errorf("store a manifest in %q: %w", r.Name(), err)
	}
	return target, nil
}

// DeleteImage removes a manifest and the tags that name it, or returns
// [ErrImageUnknown].
func (r *Repo) DeleteImage(ctx context.Context, d digest.Digest) error {
	r.s.gate.Lock()
	defer r.s.gate.Unlock()
	return r.deleteImage(ctx, d)
}

// deleteImage is DeleteImage for callers that hold the gate for writing.
func (r *Repo) deleteImage(ctx context.Context, d digest.Digest) error {
	target, err := r.s.target(ctx, r.Name(), image, d)
	if errors.Is(err, ErrBlobUnknown) {
		err = ErrImageUnknown
	}
	if err != nil {
		return fmt.Errorf("delete manifest %s of %q: %w", d, r.Name(), err)
	}
	names := []digest.Digest{target}
	var subject digest.Digest
	if img, err := r.Image(ctx, d); err == nil {
		// Content is one image, by whatever digest it is called.
		names = append(names, digest.SHA512.FromBytes(img.Content))
		if _, f, _, err := read(img.MediaType, img.Content); err == nil && f.Subject != nil {
			subject = f.Subject.Digest
		}
	}
	if !slices.Contains(names, d) {
		names = append(names, d)
	}
	for _, name := range names {
		if err := r.unlink(ctx, image, name); err != nil && !errors.Is(err, ErrBlobUnknown) {
			return fmt.Errorf("delete manifest %s of %q: %w", name, r.Name(), err)
		}
		if subject != "" {
			if err := r.dropReferrer(ctx, subject, name); err != nil {
				return err
			}
		}
	}
	return r.untagAll(ctx, names)
}
