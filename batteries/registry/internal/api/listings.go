package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// page says which part of a listing a client wants.
type page struct {
	n    int // -1: as many as the registry likes
	last string
}

// maxPage is how many names a listing has at most.
const maxPage = 10000

func (r *request) page() (page, error) {
	q := r.URL.Query()
	p := page{n: maxPage, last: q.Get("last")}
	if raw := q.Get("n"); raw != "" {
		n, err := strconv.Atoi(raw)
		if err != nil || n < 0 {
			return p, &failure{http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", quote(raw) + " is no number of entries", nil}
		}
		p.n = min(n, maxPage)
	}
	return p, nil
}

// next tells a client where the listing goes on (RFC 8288).
func (r *request) next(last string, q url.Values) {
	q.Set("last", last)
	r.w.Header().Set("Link", fmt.Sprintf("<%s?%s>; rel=\"next\"", r.URL.EscapedPath(), q.Encode()))
}

// listTags answers with the tags of a repository in lexical order.
func (r *request) listTags() error {
	p, err := r.page()
	if err != nil {
		return err
	}
	tags, more, err := r.repo.Tags(r.Context(), p.n, p.last)
	if err != nil {
		return err
	}
	if more && len(tags) > 0 {
		r.next(tags[len(tags)-1], url.Values{"n": {strconv.Itoa(p.n)}})
	}
	if tags == nil {
		tags = []string{}
	}
	return r.json(http.StatusOK, struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{r.repo.Name(), tags})
}

// listRepositories answers with the names of all repositories, or of those of
// one namespace when the query names one.
func (r *request) listRepositories() error {
	p, err := r.page()
	if err != nil {
		return err
	}
	ns := r.URL.Query().Get("namespace")
	about := Everywhere
	if ns != "" {
		about = ns + "/" + Everywhere
	}
	if err := r.allowed(List, about); err != nil {
		return err
	}
	names, err := r.h.opts.Store.Repositories(r.Context(), ns)
	if err != nil {
		return err
	}
	from, found := slices.BinarySearch(names, p.last)
	if found {
		from++
	}
	names = names[from:]
	if len(names) > p.n && p.n > 0 {
		q := url.Values{"n": {strconv.Itoa(p.n)}}
		if ns != "" {
			q.Set("namespace", ns)
		}
		r.next(names[p.n-1], q)
	}
	return r.json(http.StatusOK, map[string][]string{"repositories": append([]string{}, names[:min(p.n, len(names))]...)})
}

// maxReferrers is the size in bytes at which a listing of referrers is cut: the
// specification wants each page to be a manifest that a client would take.
const maxReferrers = 3 << 20

// listReferrers answers with an index of the manifests whose subject the digest
// is, whether or not that exists.
func (r *request) listReferrers() error {
	q := r.URL.Query()
	artifactType := q.Get("artifactType")
	all, err := r.repo.Referrers(r.Context(), r.route.digest, artifactType)
	if err != nil {
		return err
	}
	h := r.w.Header()
	h.Set("Content-Type", v1.MediaTypeImageIndex)
	if artifactType != "" {
		h.Set("OCI-Filters-Applied", "artifactType")
	}
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
	index.SchemaVersion = 2
	bytes := 0
	for _, desc := range all {
		if last := q.Get("last"); last != "" && desc.Digest.String() <= last {
			continue
		}
		raw, err := json.Marshal(desc)
		if err != nil {
			return fmt.Errorf("encode a descriptor: %w", err)
		}
		if bytes += len(raw); bytes > maxReferrers && len(index.Manifests) > 0 {
			onward := url.Values{}
			if artifactType != "" {
				onward.Set("artifactType", artifactType)
			}
			r.next(index.Manifests[len(index.Manifests)-1].Digest.String(), onward)
			break
		}
		index.Manifests = append(index.Manifests, desc)
	}
	return r.json(http.StatusOK, index)
}
