package store

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
)

// Blob is an open blob. Close it.
type Blob struct {
	io.ReadSeekCloser
	Size int64 // bytes
}

// Stat returns the size of a blob of the repository, or [ErrBlobUnknown].
func (r *Repo) Stat(ctx context.Context, d digest.Digest) (int64, error) {
	target, err := r.s.target(ctx, r.Name(), layer, d)
	if err != nil {
		return 0, fmt.Errorf("look for blob %s in %q: %w", d, r.Name(), err)
	}
	size, ok := r.s.sizeOf(ctx, target)
	if !ok {
		return 0, fmt.Errorf("look for blob %s in %q: %w", d, r.Name(), ErrBlobUnknown)
	}
	// Who asks is about to push a manifest that names it.
	r.s.touch(d, target)
	return size, nil
}

// Open opens a blob of the repository, or returns [ErrBlobUnknown].
func (r *Repo) Open(ctx context.Context, d digest.Digest) (*Blob, error) {
	target, err := r.s.target(ctx, r.Name(), layer, d)
	if err != nil {
		return nil, fmt.Errorf("open blob %s of %q: %w", d, r.Name(), err)
	}
	f, err := r.s.disk.Reader(ctx, blobPath(target), 0)
	if notFound(err) {
		err = ErrBlobUnknown
	}
	if err != nil {
		return nil, fmt.Errorf("open blob %s of %q: %w", d, r.Name(), err)
	}
	// The driver's own seekable reader buffers four megabytes for each blob; a
	// file needs none.
	file, ok := f.(io.ReadSeekCloser)
	if !ok {
		f.Close()
		return nil, fmt.Errorf("open blob %s of %q: the storage driver cannot seek", d, r.Name())
	}
	size, err := file.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open blob %s of %q: %w", d, r.Name(), err)
	}
	r.s.touch(d, target)
	return &Blob{ReadSeekCloser: file, Size: size}, nil
}

// Delete takes a blob out of the repository, or returns [ErrBlobUnknown]. Its
// content goes with the next collection unless others link it.
func (r *Repo) Delete(ctx context.Context, d digest.Digest) error {
	r.s.gate.Lock()
	defer r.s.gate.Unlock()
	if err := r.unlink(ctx, layer, d); err != nil {
		return fmt.Errorf("delete blob %s of %q: %w", d, r.Name(), err)
	}
	return nil
}

// Mount links a blob of the repository called from into this one, without
// copying it. It returns [ErrBlobUnknown] when that does not have it.
func (r *Repo) Mount(ctx context.Context, d digest.Digest, from string) error {
	if _, err := r.s.Room(r.Namespace()); err != nil {
		return err
	}
	r.s.gate.RLock()
	defer r.s.gate.RUnlock()
	target, err := r.s.target(ctx, from, layer, d)
	if err != nil {
		return fmt.Errorf("mount blob %s of %q: %w", d, from, err)
	}
	size, ok := r.s.sizeOf(ctx, target)
	if !ok {
		return fmt.Errorf("mount blob %s of %q: %w", d, from, ErrBlobUnknown)
	}
	r.s.touch(d, target)
	if d == target {
		return r.link(ctx, layer, target, size, d)
	}
	return r.link(ctx, layer, target, size, target, d)
}

// link links stored content, known by its sha256 digest, under each of names.
// The gate must be held.
func (r *Repo) link(ctx context.Context, k kind, target digest.Digest, size int64, names ...digest.Digest) error {
	for _, d := range names {
		if err := r.s.disk.PutContent(ctx, linkPath(r.Name(), k, d), []byte(target)); err != nil {
			return fmt.Errorf("link %s into %q: %w", d, r.Name(), err)
		}
		r.s.ledger.add(r.Name(), k, d, target, size)
	}
	return nil
}

// unlink removes one link. The gate must be held for writing.
func (r *Repo) unlink(ctx context.Context, k kind, d digest.Digest) error {
	if _, err := r.s.target(ctx, r.Name(), k, d); err != nil {
		return err
	}
	if err := r.s.disk.Delete(ctx, linkDir(r.Name(), k, d)); err != nil && !notFound(err) {
		return err
	}
	r.s.ledger.drop(r.Name(), k, d)
	return nil
}
