package api

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// getBlob answers GET and HEAD of a blob, or of a part of it.
func (r *request) getBlob() error {
	d := r.route.digest
	r.identify(d)
	if up := r.h.opts.Upstream; up != nil && up.Copies(r.repo.Name()) {
		// Somebody who wants only a part, or only the length, waits until the
		// whole is here.
		var begin func(int64) io.Writer
		if r.Method == http.MethodGet && r.Header.Get("Range") == "" && r.Header.Get("If-None-Match") == "" {
			begin = func(size int64) io.Writer {
				r.describeBlob()
				if size >= 0 {
					r.w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
				}
				return r.w
			}
		}
		r.w.extend(time.Hour) // of waiting for another registry, which is bounded by itself
		served, err := up.Blob(r.Context(), r.repo, d, begin)
		if served || err != nil {
			return err
		}
	}
	blob, err := r.repo.Open(r.Context(), d)
	if err != nil {
		return err
	}
	defer blob.Close()
	r.describeBlob()
	http.ServeContent(r.w, r.Request, "", time.Time{}, blob)
	if r.w.err != nil {
		r.h.opts.Log.Debug("send a blob", "path", r.URL.Path, "err", r.w.err)
	}
	return nil
}

// describeBlob sets the headers of every answer with a blob. What a digest names
// never changes.
func (r *request) describeBlob() {
	h := r.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("ETag", strconv.Quote(r.route.digest.String()))
	h.Set("Cache-Control", "private, max-age=31536000, immutable")
}

func (r *request) deleteBlob() error {
	if err := r.repo.Delete(r.Context(), r.route.digest); err != nil {
		return err
	}
	r.w.WriteHeader(http.StatusAccepted)
	return nil
}

// blobCreated answers that a blob is stored.
func (r *request) blobCreated() {
	r.w.Header().Set("Location", fmt.Sprintf("/v2/%s/blobs/%s", r.repo.Name(), r.route.digest))
	r.identify(r.route.digest)
	r.w.WriteHeader(http.StatusCreated)
}
