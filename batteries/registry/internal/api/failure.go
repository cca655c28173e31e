package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/emerald-platform/emerald/batteries/registry/internal/store"
	"github.com/emerald-platform/emerald/batteries/registry/internal/upstream"
)

// failure is an answer that is no success: a status, and a code and a message
// for the body (distribution-spec 1.1, "Error Codes").
type failure struct {
	status  int
	code    string
	message string
	detail  any
}

func (f *failure) Error() string { return f.message }

// fail answers with an error. Once the answer has begun, it breaks the
// connection instead, so that nobody takes a part for the whole.
func (r *request) fail(err error) {
	f := r.explain(err)
	if r.w.status != 0 {
		r.h.opts.Log.Warn("break off an answer", "path", r.URL.Path, "err", err)
		panic(http.ErrAbortHandler)
	}
	if f.status >= 500 {
		r.h.opts.Log.Error("answer with a failure", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if f.status == http.StatusUnauthorized {
		r.w.Header().Set("WWW-Authenticate", fmt.Sprintf("Basic realm=%q, charset=\"UTF-8\"", r.h.opts.Realm))
	}
	if r.Body != nil && r.ContentLength != 0 {
		// A client that sends a layer in vain should stop, not fill the pipe.
		r.w.Header().Set("Connection", "close")
	}
	type item struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Detail  any    `json:"detail,omitempty"`
	}
	err = r.json(f.status, map[string][]item{"errors": {{f.code, f.message, f.detail}}})
	if err != nil {
		r.h.opts.Log.Debug("send an error", "path", r.URL.Path, "err", err)
	}
}

// explain finds the answer for an error of any layer below.
func (r *request) explain(err error) *failure {
	var (
		own         *failure
		missing     *store.MissingError
		quota       *store.QuotaError
		unreachable *upstream.UnreachableError
		tooLarge    *http.MaxBytesError
	)
	repo := r.route.repo
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, ErrUnauthenticated):
		return &failure{http.StatusUnauthorized, "UNAUTHORIZED", err.Error() + ": log in with: emerald registry login", nil}
	case errors.Is(err, ErrUnavailable):
		return &failure{http.StatusServiceUnavailable, "UNAVAILABLE", ErrUnavailable.Error() + ": try again in a moment", nil}
	case errors.As(err, &missing):
		return &failure{http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "the manifest names blobs that " + repo + " does not hold: push them first", missing.Digests}
	case errors.As(err, &quota):
		return &failure{http.StatusForbidden, "DENIED", fmt.Sprintf(
			"the quota of namespace %q is used up: it holds %s of %s: delete images and run: emerald registry gc: or raise the setting quota of the battery registry",
			quota.Namespace, size(quota.Used), size(quota.Limit)), nil}
	case errors.As(err, &unreachable) && r.Method == http.MethodHead && r.allowed(Push, repo) == nil:
		// A client that is about to push asks first what is there.
		return &failure{http.StatusNotFound, "MANIFEST_UNKNOWN", r.about() + " is not stored here", nil}
	case errors.As(err, &unreachable):
		return &failure{http.StatusBadGateway, "UNAVAILABLE", fmt.Sprintf(
			"%s is not stored here, and %s cannot be reached to fetch it: %v: give the machine a network, or push the image as %s",
			r.about(), unreachable.Host, unreachable.Err, r.about()), nil}
	case errors.Is(err, upstream.ErrUnknown):
		code := "MANIFEST_UNKNOWN"
		if r.route.kind == blobRoute {
			code = "BLOB_UNKNOWN"
		}
		return &failure{http.StatusNotFound, code, fmt.Sprintf("%s: neither stored here nor at %s", r.about(), store.Namespace(repo)), nil}
	case errors.Is(err, store.ErrBlobUnknown):
		return &failure{http.StatusNotFound, "BLOB_UNKNOWN", fmt.Sprintf("%s holds no blob %s", repo, r.route.digest), nil}
	case errors.Is(err, store.ErrImageUnknown):
		return &failure{http.StatusNotFound, "MANIFEST_UNKNOWN", "there is no image " + r.about(), nil}
	case errors.Is(err, store.ErrUploadUnknown):
		return &failure{http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "this upload ended or expired: begin it again", nil}
	case errors.Is(err, store.ErrUploadBusy):
		return &failure{http.StatusConflict, "BLOB_UPLOAD_INVALID", err.Error() + ": wait for it, then ask how much has arrived", nil}
	case errors.Is(err, store.ErrRepositoryUnknown):
		return &failure{http.StatusNotFound, "NAME_UNKNOWN", "nothing was ever pushed to " + repo, nil}
	case errors.Is(err, store.ErrNameInvalid):
		return &failure{http.StatusBadRequest, "NAME_INVALID", quote(repo) +
			" cannot name a repository: use NAMESPACE/IMAGE in lowercase letters, digits and single separators", nil}
	case errors.Is(err, store.ErrDigestInvalid):
		return &failure{http.StatusBadRequest, "DIGEST_INVALID", "what arrived does not have the digest that was given: send it again", nil}
	case errors.Is(err, store.ErrImageInvalid):
		return &failure{http.StatusBadRequest, "MANIFEST_INVALID", err.Error(), nil}
	case errors.As(err, &tooLarge):
		return &failure{http.StatusRequestEntityTooLarge, "SIZE_INVALID", fmt.Sprintf("at most %s are allowed here", size(tooLarge.Limit)), nil}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return diskFull("the disk is full")
	case r.Context().Err() != nil, errors.Is(err, errInterrupted):
		return &failure{http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "the request broke off before all of it had arrived", nil}
	}
	return &failure{http.StatusInternalServerError, "UNKNOWN", "the registry failed at this: its log says why: emerald kubectl logs -n emerald-registry deployment/registry", nil}
}

// about names the image a request is about, for people.
func (r *request) about() string {
	switch {
	case r.route.tag != "":
		return r.route.repo + ":" + r.route.tag
	case r.route.digest != "":
		return r.route.repo + "@" + r.route.digest.String()
	}
	return r.route.repo
}

func diskFull(what string) *failure {
	return &failure{http.StatusInsufficientStorage, "DENIED", what +
		" on the machine of the registry: free space there, or delete images and run: emerald registry gc", nil}
}

func denied(c Caller, a Action, repository string) *failure {
	what := map[Action]string{
		Pull: "pull from", Push: "push to", Delete: "delete from", List: "list", Collect: "collect garbage of",
	}[a]
	if repository == Everywhere {
		repository = "all repositories"
	}
	return &failure{http.StatusForbidden, "DENIED", fmt.Sprintf(
		"%s may not %s %s: ask for a role with verb %s on repositories.registry.emerald.dev there", c.Name, what, repository, a), nil}
}

func invalidTag(tag string) *failure {
	return &failure{http.StatusBadRequest, "TAG_INVALID", quote(tag) +
		" is no tag: use at most 128 letters, digits, dots, dashes and underscores, and begin with none of . and -", nil}
}

func invalidRange(message string) *failure {
	return &failure{http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", message, nil}
}

// quote prints untrusted text, cut to a sane length.
func quote(s string) string {
	if len(s) > 150 {
		s = s[:150] + "…"
	}
	return strconv.Quote(s)
}

// size prints bytes for people.
func size(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0") + " " + units[i]
}

// json answers with a value.
func (r *request) json(status int, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode an answer: %w", err)
	}
	h := r.w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json")
	}
	h.Set("Content-Length", strconv.Itoa(len(raw)))
	r.w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err = r.w.Write(raw)
	return err
}

// identify names content in an answer by the digest the client knows it by.
func (r *request) identify(d digest.Digest) {
	r.w.Header().Set("Docker-Content-Digest", d.String())
}
