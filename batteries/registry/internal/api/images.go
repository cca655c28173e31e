package api

import (
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"

	"github.com/opencontainers/go-digest"

	"github.com/emerald-platform/emerald/batteries/registry/internal/store"
)

// getImage answers GET and HEAD of a manifest.
func (r *request) getImage() error {
	d, err := r.resolve()
	if err != nil {
		return err
	}
	image, err := r.repo.Image(r.Context(), d)
	if err != nil {
		return err
	}
	h := r.w.Header()
	r.identify(d)
	h.Set("ETag", strconv.Quote(d.String()))
	for _, known := range r.Header.Values("If-None-Match") {
		if known == d.String() || known == strconv.Quote(d.String()) {
			r.w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	h.Set("Content-Type", image.MediaType)
	h.Set("Content-Length", strconv.Itoa(len(image.Content)))
	r.w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err = r.w.Write(image.Content)
	return err
}

// resolve returns the digest of the manifest that the path names, after
// copying it from another registry where that is its home.
func (r *request) resolve() (digest.Digest, error) {
	up := r.h.opts.Upstream
	copied := up != nil && up.Copies(r.repo.Name())
	if copied {
		r.w.extend(patience * 2) // what asking another registry may take
	}
	switch {
	case r.route.tag != "" && copied:
		return up.Tag(r.Context(), r.repo, r.route.tag)
	case r.route.tag != "":
		return r.repo.Resolve(r.Context(), r.route.tag)
	case copied:
		return r.route.digest, up.Image(r.Context(), r.repo, r.route.digest)
	}
	return r.route.digest, nil
}

// putImage stores a manifest.
func (r *request) putImage() error {
	tooLarge := &failure{
		http.StatusRequestEntityTooLarge, "SIZE_INVALID",
		fmt.Sprintf("a manifest may have %s at most: move what makes it large into a blob", size(store.MaxImage)), nil,
	}
	if r.ContentLength > store.MaxImage {
		return tooLarge
	}
	in := &body{src: r.Body, w: r.w, left: store.MaxImage, over: tooLarge}
	content, err := io.ReadAll(in)
	r.w.received += in.count
	if err != nil {
		return err
	}
	image := store.Pushed{Content: content, Digest: r.route.digest}
	if header := r.Header.Get("Content-Type"); header != "" {
		if image.MediaType, _, err = mime.ParseMediaType(header); err != nil {
			return &failure{http.StatusBadRequest, "MANIFEST_INVALID", "the Content-Type " + quote(header) + " is malformed", nil}
		}
	}
	if r.route.tag != "" {
		image.Tags = []string{r.route.tag}
	}
	for _, tag := range r.URL.Query()["tag"] {
		if !tagRule.MatchString(tag) {
			return invalidTag(tag)
		}
		image.Tags = append(image.Tags, tag)
		r.w.Header().Add("OCI-Tag", tag)
	}
	if err := r.roomFor(int64(len(content))); err != nil {
		return err
	}
	r.w.extend(patience)
	d, subject, err := r.repo.Put(context.WithoutCancel(r.Context()), image)
	if err != nil {
		r.w.Header().Del("OCI-Tag")
		return err
	}
	h := r.w.Header()
	h.Set("Location", fmt.Sprintf("/v2/%s/manifests/%s", r.repo.Name(), d))
	r.identify(d)
	if subject != "" {
		h.Set("OCI-Subject", subject.String())
	}
	r.w.WriteHeader(http.StatusCreated)
	return nil
}

// deleteImage removes a tag, or a manifest and all its tags.
func (r *request) deleteImage() error {
	ctx := context.WithoutCancel(r.Context())
	var err error
	if r.route.tag != "" {
		err = r.repo.Untag(ctx, r.route.tag)
	} else {
		err = r.repo.DeleteImage(ctx, r.route.digest)
	}
	if err != nil {
		return err
	}
	r.w.WriteHeader(http.StatusAccepted)
	return nil
}
