package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/emerald-platform/emerald/batteries/registry/internal/store"
)

// startUpload answers POST: it mounts a blob that is here already, takes one
// whole, or begins an upload.
func (r *request) startUpload() error {
	q := r.URL.Query()
	if raw := q.Get("mount"); raw != "" {
		d, err := parseDigest(raw)
		if err != nil {
			return err
		}
		if mounted, err := r.mount(d, q.Get("from")); mounted || err != nil {
			return err
		}
	}
	if err := r.roomFor(r.ContentLength); err != nil {
		return err
	}
	u, err := r.repo.Start(r.Context())
	if err != nil {
		return err
	}
	defer r.close(u)
	if raw := q.Get("digest"); raw != "" {
		return r.finish(u, raw)
	}
	return r.uploading(http.StatusAccepted, u.ID(), 0)
}

// mount links a blob of another repository into this one. It tells whether it
// answered; if not, the client has to send the blob.
func (r *request) mount(d digest.Digest, from string) (bool, error) {
	if from == "" {
		from = r.holder(d)
	}
	// Whether somebody else's repository has the blob is nobody's business.
	if from == "" || r.allowed(Pull, from) != nil {
		return false, nil
	}
	err := r.repo.Mount(r.Context(), d, from)
	if errors.Is(err, store.ErrBlobUnknown) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	r.route.digest = d
	r.blobCreated()
	return true, nil
}

// holder finds a repository that has a blob: one of the same namespace, or a
// copy of another registry's, or "".
func (r *request) holder(d digest.Digest) string {
	if from := r.h.opts.Store.Holder(r.repo.Namespace(), d); from != "" {
		return from
	}
	if r.h.opts.Upstream != nil {
		for _, host := range r.h.opts.Upstream.Names() {
			if from := r.h.opts.Store.Holder(host, d); from != "" {
				return from
			}
		}
	}
	return ""
}

// getUpload tells how much of an upload has arrived.
func (r *request) getUpload() error {
	n, err := r.repo.Received(r.Context(), r.route.upload)
	if err != nil {
		return err
	}
	return r.uploading(http.StatusNoContent, r.route.upload, n)
}

// patchUpload takes the next chunk.
func (r *request) patchUpload() error {
	u, err := r.resume()
	if err != nil {
		return err
	}
	defer r.close(u)
	if err := r.receive(u); err != nil {
		return err
	}
	return r.uploading(http.StatusAccepted, u.ID(), u.Size())
}

// putUpload takes the last chunk, if any, and makes the upload a blob.
func (r *request) putUpload() error {
	raw := r.URL.Query().Get("digest")
	if _, err := parseDigest(raw); err != nil {
		return err // the upload stays
	}
	u, err := r.resume()
	if err != nil {
		return err
	}
	defer r.close(u)
	return r.finish(u, raw)
}

func (r *request) cancelUpload() error {
	u, err := r.repo.Resume(r.Context(), r.route.upload)
	if err != nil {
		return err
	}
	if err := u.Cancel(r.Context()); err != nil {
		return err
	}
	r.w.WriteHeader(http.StatusNoContent)
	return nil
}

// resume opens the upload of the path at the place where this request goes on.
func (r *request) resume() (*store.Upload, error) {
	u, err := r.repo.Resume(r.Context(), r.route.upload)
	if err != nil {
		return nil, err
	}
	header := r.Header.Get("Content-Range")
	if header == "" {
		return u, nil
	}
	from, to, ok := parseContentRange(header)
	switch {
	case !ok:
		err = invalidRange(quote(header) + " is no Content-Range of an upload: it is written FIRST-LAST")
	case from != u.Size():
		err = invalidRange(fmt.Sprintf("the chunk begins at byte %d, but %d bytes have arrived: go on there", from, u.Size()))
	case r.ContentLength >= 0 && to-from+1 != r.ContentLength:
		err = invalidRange(fmt.Sprintf("the chunk is said to have %d bytes and has %d", to-from+1, r.ContentLength))
	}
	if err == nil {
		return u, nil
	}
	r.w.Header().Set("Location", r.uploadLocation(u.ID()))
	r.w.Header().Set("Range", received(u.Size()))
	r.close(u)
	return nil, err
}

// finish takes what the request carries and makes the upload a blob.
func (r *request) finish(u *store.Upload, rawDigest string) error {
	d, err := parseDigest(rawDigest)
	if err != nil {
		return errors.Join(err, u.Cancel(r.Context()))
	}
	if err := r.receive(u); err != nil {
		return err
	}
	r.route.digest = d
	// Content by another digest than sha256 is read once more.
	r.w.extend(patience + time.Duration(u.Size()>>26)*time.Second)
	// From here on the client can no longer take it back.
	if err := u.Commit(context.WithoutCancel(r.Context()), d); err != nil {
		return err
	}
	r.blobCreated()
	return nil
}

// receive adds what the request carries to an upload. When that is too much the
// upload is over; when the client stopped, it may be resumed.
func (r *request) receive(u *store.Upload) error {
	if r.ContentLength == 0 {
		return nil
	}
	if err := r.roomFor(u.Size() + max(r.ContentLength, 0)); err != nil {
		return errors.Join(err, u.Cancel(context.WithoutCancel(r.Context())))
	}
	left, over := r.h.opts.MaxBlob-u.Size(), r.tooLarge()
	if room, err := r.repo.Room(); err != nil {
		return err
	} else if room >= 0 && room-u.Size() < left {
		used := r.h.opts.Store.Used(r.repo.Namespace())
		left, over = room-u.Size(), &store.QuotaError{Namespace: r.repo.Namespace(), Used: used, Limit: used + room}
	}
	in := &body{src: r.Body, w: r.w, left: max(left, 0), over: over}
	err := u.Append(in)
	r.w.received += in.count
	if errors.Is(err, over) {
		return errors.Join(err, u.Cancel(context.WithoutCancel(r.Context())))
	}
	return err
}

// roomFor returns an error when a blob of that many bytes cannot be taken. An
// unknown or small number asks whether there is any room at all.
func (r *request) roomFor(bytes int64) error {
	if bytes > r.h.opts.MaxBlob {
		return r.tooLarge()
	}
	room, err := r.repo.Room()
	if err != nil {
		return err
	}
	if room >= 0 && bytes > room {
		used := r.h.opts.Store.Used(r.repo.Namespace())
		return &store.QuotaError{Namespace: r.repo.Namespace(), Used: used, Limit: used + room}
	}
	free, err := r.h.opts.Store.Free()
	if err != nil {
		return err
	}
	if free-max(bytes, 0) < r.h.opts.Reserve {
		return diskFull("only " + size(free) + " of the disk are free")
	}
	return nil
}

func (r *request) tooLarge() error {
	return &failure{
		http.StatusRequestEntityTooLarge, "SIZE_INVALID",
		fmt.Sprintf("this blob is larger than the %s a blob may have: split it, or raise the setting maxBlob of the battery registry", size(r.h.opts.MaxBlob)), nil,
	}
}

// uploading answers with the state of an upload.
func (r *request) uploading(status int, id string, n int64) error {
	h := r.w.Header()
	h.Set("Location", r.uploadLocation(id))
	h.Set("Range", received(n))
	h.Set("Docker-Upload-UUID", id)
	if status != http.StatusNoContent {
		h.Set("Content-Length", "0")
	}
	r.w.WriteHeader(status)
	return nil
}

func (r *request) uploadLocation(id string) string {
	return fmt.Sprintf("/v2/%s/blobs/uploads/%s", r.repo.Name(), id)
}

// close lets go of an upload; what arrived is kept even if that fails.
func (r *request) close(u *store.Upload) {
	if err := u.Close(); err != nil {
		r.h.opts.Log.Warn("let go of an upload", "upload", u.ID(), "err", err)
	}
}

// received is the Range header for the first n bytes. The specification has no
// way to write that there are none.
func received(n int64) string {
	return "0-" + strconv.FormatInt(max(n-1, 0), 10)
}

// parseContentRange understands the Content-Range of a chunk: FIRST-LAST, with
// neither unit nor total, unlike RFC 9110 (distribution-spec 1.1, "Pushing a
// blob in chunks").
func parseContentRange(s string) (from, to int64, ok bool) {
	a, b, ok := strings.Cut(s, "-")
	if !ok {
		return 0, 0, false
	}
	from, err1 := strconv.ParseInt(a, 10, 62)
	to, err2 := strconv.ParseInt(b, 10, 62)
	if err1 != nil || err2 != nil || a[0] == '+' || b[0] == '+' || b[0] == '-' || from < 0 || to < from {
		return 0, 0, false
	}
	return from, to, true
}
