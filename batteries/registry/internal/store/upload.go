package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Upload is a blob on its way in, held by one request at a time. It ends with
// Close, after which it may be resumed, or with Commit or Cancel.
type Upload struct {
	r    *Repo
	id   string
	w    distribution.BlobWriter
	over bool
}

// uploadID matches the names that uploads are given.
var uploadID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// Start begins an upload.
func (r *Repo) Start(ctx context.Context) (*Upload, error) {
	repo, err := r.storage(ctx)
	if err != nil {
		return nil, err
	}
	w, err := repo.Blobs(ctx).Create(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin an upload to %q: %w", r.Name(), err)
	}
	u := &Upload{r: r, id: w.ID(), w: w}
	u.claim() // nobody knows the name yet
	return u, nil
}

// Resume goes on with an upload. It returns [ErrUploadUnknown] or
// [ErrUploadBusy].
func (r *Repo) Resume(ctx context.Context, id string) (*Upload, error) {
	if !uploadID.MatchString(id) {
		return nil, fmt.Errorf("resume upload %q: %w", id, ErrUploadUnknown)
	}
	u := &Upload{r: r, id: id}
	if !u.claim() {
		return nil, fmt.Errorf("resume upload %s: %w", id, ErrUploadBusy)
	}
	repo, err := r.storage(ctx)
	if err == nil {
		u.w, err = repo.Blobs(ctx).Resume(ctx, id)
	}
	if err != nil {
		u.release()
		if errors.Is(err, distribution.ErrBlobUploadUnknown) {
			err = ErrUploadUnknown
		}
		return nil, fmt.Errorf("resume upload %s: %w", id, err)
	}
	return u, nil
}

// Received returns how many bytes of an upload have arrived, or
// [ErrUploadUnknown].
func (r *Repo) Received(ctx context.Context, id string) (int64, error) {
	if !uploadID.MatchString(id) {
		return 0, fmt.Errorf("look for upload %q: %w", id, ErrUploadUnknown)
	}
	fi, err := r.s.disk.Stat(ctx, path.Join(uploadDir(r.Name(), id), "data"))
	if notFound(err) {
		err = ErrUploadUnknown
	}
	if err != nil {
		return 0, fmt.Errorf("look for upload %s: %w", id, err)
	}
	return fi.Size(), nil
}

// claim takes the upload for this request, and tells whether it was free: two
// writers would mix their bytes.
func (u *Upload) claim() bool {
	u.r.s.mu.Lock()
	defer u.r.s.mu.Unlock()
	if _, busy := u.r.s.active[u.id]; busy {
		return false
	}
	u.r.s.active[u.id] = struct{}{}
	return true
}

func (u *Upload) release() {
	u.r.s.mu.Lock()
	defer u.r.s.mu.Unlock()
	delete(u.r.s.active, u.id)
}

// ID names the upload.
func (u *Upload) ID() string { return u.id }

// Size returns how many bytes have arrived.
func (u *Upload) Size() int64 { return u.w.Size() }

// Append adds all of src. What arrived before an error stays.
func (u *Upload) Append(src io.Reader) error {
	if _, err := u.w.ReadFrom(src); err != nil {
		return fmt.Errorf("write upload %s: %w", u.id, err)
	}
	return nil
}

// Close lets go of the upload. It does nothing after Commit and Cancel.
func (u *Upload) Close() error {
	if u.over {
		return nil
	}
	u.over = true
	defer u.release()
	if err := u.w.Close(); err != nil {
		return fmt.Errorf("close upload %s: %w", u.id, err)
	}
	return nil
}

// Commit makes the upload a blob of the repository, and returns once that would
// survive a power loss. When the content has another digest it returns
// [ErrDigestInvalid]. The upload is gone either way.
func (u *Upload) Commit(ctx context.Context, d digest.Digest) error {
	s := u.r.s
	u.over = true
	defer u.release()
	s.gate.RLock()
	defer s.gate.RUnlock()
	desc, err := u.w.Commit(ctx, v1.Descriptor{Digest: d})
	if err != nil {
		var mismatch distribution.ErrBlobInvalidDigest
		if errors.As(err, &mismatch) {
			err = ErrDigestInvalid
		}
		return errors.Join(fmt.Errorf("store blob %s in %q: %w", d, u.r.Name(), err), u.discard(ctx))
	}
	s.touch(d, desc.Digest)
	s.ledger.add(u.r.Name(), layer, desc.Digest, desc.Digest, desc.Size)
	s.ledger.add(u.r.Name(), layer, d, desc.Digest, desc.Size)
	return nil
}

// Cancel throws the upload away.
func (u *Upload) Cancel(ctx context.Context) error {
	u.over = true
	defer u.release()
	u.w.Close() // its file is about to go
	return u.discard(ctx)
}

func (u *Upload) discard(ctx context.Context) error {
	err := u.r.s.disk.Delete(ctx, uploadDir(u.r.Name(), u.id))
	if err != nil && !notFound(err) {
		return fmt.Errorf("discard upload %s: %w", u.id, err)
	}
	return nil
}
