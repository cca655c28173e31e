package store

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Tags returns up to n tags of the repository that come after last, in lexical
// order, and whether there are more; n < 0 means all. It returns
// [ErrRepositoryUnknown] when nothing was ever pushed.
func (r *Repo) Tags(ctx context.Context, n int, last string) (tags []string, more bool, err error) {
	all, err := r.allTags(ctx)
	if err != nil {
		return nil, false, err
	}
	from, found := slices.BinarySearch(all, last)
	if found {
		from++
	}
	for _, tag := range all[from:] {
		if n >= 0 && len(tags) == n {
			return tags, true, nil
		}
		// A tag that was being written when the process was killed has a
		// directory but names nothing.
		if _, err := r.s.disk.Stat(ctx, tagPath(r.Name(), tag)); err == nil {
			tags = append(tags, tag)
		}
	}
	return tags, false, nil
}

func (r *Repo) allTags(ctx context.Context) ([]string, error) {
	repo, err := r.storage(ctx)
	if err != nil {
		return nil, err
	}
	all, err := repo.Tags(ctx).All(ctx)
	var unknown distribution.ErrRepositoryUnknown
	if errors.As(err, &unknown) {
		if _, err := r.s.disk.Stat(ctx, repoDir(r.Name())); err == nil {
			return nil, nil // blobs only, so far
		}
		err = ErrRepositoryUnknown
	}
	if err != nil {
		return nil, fmt.Errorf("list the tags of %q: %w", r.Name(), err)
	}
	return all, nil
}

// tag makes a tag name a manifest. The images of the repository must be locked.
func (r *Repo) tag(ctx context.Context, tag string, d digest.Digest) error {
	repo, err := r.storage(ctx)
	if err != nil {
		return err
	}
	if err := repo.Tags(ctx).Tag(ctx, tag, v1.Descriptor{Digest: d}); err != nil {
		return fmt.Errorf("tag %s of %q as %q: %w", d, r.Name(), tag, err)
	}
	return nil
}

// Untag removes a tag, or returns [ErrImageUnknown].
func (r *Repo) Untag(ctx context.Context, tag string) error {
	r.s.gate.Lock()
	defer r.s.gate.Unlock()
	err := r.untag(ctx, tag)
	if notFound(err) {
		err = ErrImageUnknown
	}
	if err != nil {
		return fmt.Errorf("remove tag %q of %q: %w", tag, r.Name(), err)
	}
	return nil
}

func (r *Repo) untag(ctx context.Context, tag string) error {
	// Two levels up from "current/link" is all there is about the tag.
	return r.s.disk.Delete(ctx, path.Dir(path.Dir(tagPath(r.Name(), tag))))
}

// untagAll removes every tag that names one of the digests. The gate must be
// held for writing.
func (r *Repo) untagAll(ctx context.Context, digests []digest.Digest) error {
	all, err := r.allTags(ctx)
	if err != nil {
		return err
	}
	for _, tag := range all {
		d, err := r.Resolve(ctx, tag)
		if errors.Is(err, ErrImageUnknown) || err == nil && !slices.Contains(digests, d) {
			continue
		}
		if err == nil {
			err = r.untag(ctx, tag)
		}
		if err != nil && !notFound(err) {
			return fmt.Errorf("remove tag %q of %q: %w", tag, r.Name(), err)
		}
	}
	return nil
}
