package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Retention says what a collection lets live.
type Retention struct {
	// Grace is how long a blob that no manifest names is kept after somebody
	// pushed, mounted or asked for it: a manifest may be on its way.
	Grace time.Duration
	// Uploads is how long an upload may stand still.
	Uploads time.Duration
	// Untagged is how long a manifest lives that no tag and no index names and
	// that refers to no other. 0 means for ever: pods may run it by digest.
	Untagged time.Duration
}

// Collected is what a collection removed.
type Collected struct {
	Images  int   `json:"images"`  // manifests
	Blobs   int   `json:"blobs"`   // files of content, manifests among them
	Uploads int   `json:"uploads"` // uploads nobody finished
	Bytes   int64 `json:"bytes"`   // that the disk got back
}

// batch is how many removals keep pushes waiting at a time.
const batch = 32

// Collect removes what nobody needs any more: uploads that expired, manifests
// by the rules of keep, links to blobs that no manifest of their repository
// names, and content that no link names. Pushes and pulls go on meanwhile; a
// push waits for a few removals at most. It returns what it removed even when it
// fails.
func (s *Store) Collect(ctx context.Context, keep Retention) (Collected, error) {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	var done Collected
	now := time.Now()

	var (
		names []string
		errs  []error
	)
	if err := s.repositories(ctx, func(name string, _ bool) error { names = append(names, name); return nil }); err != nil {
		return done, err
	}
	for _, name := range names {
		r, err := s.Repo(name)
		if err == nil {
			err = r.collectUploads(ctx, now.Add(-keep.Uploads), &done)
		}
		if err == nil && keep.Untagged > 0 {
			err = r.collectImages(ctx, now.Add(-keep.Untagged), &done)
		}
		if err == nil {
			err = r.collectLinks(ctx, now.Add(-keep.Grace))
		}
		if err == nil {
			err = r.collectEmpty(ctx)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("collect in %q: %w", name, err))
		}
	}
	if err := s.collectContent(ctx, &done); err != nil {
		errs = append(errs, err)
	}

	s.mu.Lock()
	maps.DeleteFunc(s.touched, func(_ digest.Digest, at time.Time) bool { return at.Before(now.Add(-keep.Grace)) })
	s.mu.Unlock()
	return done, errors.Join(errs...)
}

// collectUploads removes uploads that nobody went on with since the time given.
func (r *Repo) collectUploads(ctx context.Context, before time.Time, done *Collected) error {
	uploads, err := r.s.disk.List(ctx, uploadsDir(r.Name()))
	if err != nil && !notFound(err) {
		return err
	}
	for _, dir := range uploads {
		u := &Upload{r: r, id: path.Base(dir)}
		fi, err := r.s.disk.Stat(ctx, path.Join(dir, "data"))
		if notFound(err) {
			fi, err = r.s.disk.Stat(ctx, dir)
		}
		if notFound(err) || err == nil && fi.ModTime().After(before) || !u.claim() {
			continue // over, or going on
		}
		if err == nil {
			err = u.discard(ctx)
		}
		u.release()
		if err != nil {
			return err
		}
		done.Uploads++
	}
	return nil
}

// named is what the manifests of a repository name.
type named struct {
	blobs    map[digest.Digest]bool // and manifests named by an index
	subjects map[digest.Digest]bool // manifests that refer to another one
}

// survey reads every manifest of the repository.
func (r *Repo) survey(ctx context.Context, images []link) (named, error) {
	n := named{blobs: map[digest.Digest]bool{}, subjects: map[digest.Digest]bool{}}
	for _, l := range images {
		img, err := r.Image(ctx, l.digest)
		if errors.Is(err, ErrImageUnknown) {
			continue // removed meanwhile
		}
		if err != nil {
			return n, err // an unreadable manifest must not cost its blobs
		}
		m, f, _, err := read(img.MediaType, img.Content)
		if err != nil {
			return n, err
		}
		for _, ref := range m.References() {
			n.blobs[ref.Digest] = true
		}
		if f.Subject != nil {
			n.subjects[l.digest] = true
		}
	}
	return n, nil
}

// collectImages removes manifests that were pushed before the time given and
// that nothing names.
func (r *Repo) collectImages(ctx context.Context, before time.Time, done *Collected) error {
	images, err := r.s.links(ctx, r.Name(), image)
	if err != nil {
		return err
	}
	n, err := r.survey(ctx, images)
	if err != nil {
		return err
	}
	for _, l := range images {
		if n.blobs[l.digest] || n.subjects[l.digest] || l.digest != l.target {
			continue
		}
		removed, err := r.collectImage(ctx, l, before)
		if err != nil {
			return err
		}
		if removed {
			done.Images++
		}
	}
	return nil
}

// collectImage removes one manifest unless it has become young or tagged.
func (r *Repo) collectImage(ctx context.Context, l link, before time.Time) (bool, error) {
	r.s.gate.Lock()
	defer r.s.gate.Unlock()
	if age := r.s.linkAge(ctx, r.Name(), image, l.digest); age.IsZero() || age.After(before) || r.s.touchedAfter(before, l.digest) {
		return false, nil
	}
	names := []digest.Digest{l.target}
	if img, err := r.Image(ctx, l.digest); err == nil {
		names = append(names, digest.SHA512.FromBytes(img.Content))
	}
	tags, err := r.allTags(ctx)
	if err != nil {
		return false, err
	}
	for _, tag := range tags {
		if d, err := r.Resolve(ctx, tag); err == nil && slices.Contains(names, d) {
			return false, nil
		}
	}
	return true, r.deleteImage(ctx, l.digest)
}

// collectLinks removes the links to blobs that no manifest of the repository
// names and nobody asked for since the time given.
func (r *Repo) collectLinks(ctx context.Context, before time.Time) error {
	images, err := r.s.links(ctx, r.Name(), image)
	if err != nil {
		return err
	}
	n, err := r.survey(ctx, images)
	if err != nil {
		return err
	}
	blobs, err := r.s.links(ctx, r.Name(), layer)
	if err != nil {
		return err
	}
	for _, l := range blobs {
		if n.blobs[l.digest] {
			n.blobs[l.target] = true // named by another digest of the same content
		}
	}
	for group := range slices.Chunk(blobs, batch) {
		r.s.gate.Lock()
		for _, l := range group {
			if n.blobs[l.digest] || r.s.touchedAfter(before, l.digest, l.target) ||
				r.s.linkAge(ctx, r.Name(), layer, l.digest).After(before) {
				continue
			}
			if uerr := r.unlink(ctx, layer, l.digest); uerr != nil && !errors.Is(uerr, ErrBlobUnknown) {
				err = errors.Join(err, uerr)
			}
		}
		r.s.gate.Unlock()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// collectEmpty removes what is left of a repository that holds nothing any more.
// Its directory of uploads stays, in which one may just be beginning.
func (r *Repo) collectEmpty(ctx context.Context) error {
	r.s.gate.Lock()
	defer r.s.gate.Unlock()
	for _, k := range []kind{image, layer} {
		if links, err := r.s.links(ctx, r.Name(), k); err != nil || len(links) > 0 {
			return err
		}
	}
	for _, part := range []string{"_manifests", "_layers", "_referrers"} {
		if err := r.s.disk.Delete(ctx, path.Join(repoDir(r.Name()), part)); err != nil && !notFound(err) {
			return err
		}
	}
	return nil
}

// collectContent removes content that no repository links.
func (s *Store) collectContent(ctx context.Context, done *Collected) error {
	var orphans []digest.Digest
	err := s.reg.Blobs().Enumerate(ctx, func(d digest.Digest) error {
		if !s.ledger.linked(d) {
			orphans = append(orphans, d)
		}
		return ctx.Err()
	})
	if err != nil && !notFound(err) {
		return fmt.Errorf("list the stored content: %w", err)
	}
	for group := range slices.Chunk(orphans, batch) {
		if err := s.removeContent(ctx, group, done); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) removeContent(ctx context.Context, orphans []digest.Digest, done *Collected) error {
	s.gate.Lock()
	defer s.gate.Unlock()
	for _, d := range orphans {
		size, ok := s.sizeOf(ctx, d)
		if !ok || s.ledger.linked(d) {
			continue
		}
		if err := s.disk.Delete(ctx, blobDir(d)); err != nil && !notFound(err) {
			return fmt.Errorf("remove content %s: %w", d, err)
		}
		done.Blobs++
		done.Bytes += size
	}
	return ctx.Err()
}

// touchedAfter tells whether somebody counted on one of these since the time
// given.
func (s *Store) touchedAfter(t time.Time, digests ...digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range digests {
		if s.touched[d].After(t) {
			return true
		}
	}
	return false
}
