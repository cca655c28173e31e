package api

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
)

// routeKind is what a path is about.
type routeKind int

const (
	pingRoute routeKind = iota
	catalogRoute
	collectRoute
	blobRoute
	uploadsRoute // where uploads begin
	uploadRoute
	manifestRoute
	tagsRoute
	referrersRoute
)

// String returns the word used for logging and to find a handler.
func (k routeKind) String() string {
	return [...]string{"ping", "catalog", "collect", "blob", "uploads", "upload", "manifest", "tags", "referrers"}[k]
}

// route is a path understood. Of the last three fields at most one is set.
type route struct {
	kind   routeKind
	repo   string // not checked yet
	digest digest.Digest
	tag    string
	upload string
}

// tagRule is the specification's: at most 128 characters.
var tagRule = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

// parseRoute understands a path of the distribution API. Names of repositories
// may hold any of the words that follow them, so it reads from the end.
func parseRoute(path string) (route, error) {
	switch path {
	case "/v2/", "/v2":
		return route{kind: pingRoute}, nil
	case "/v2/_catalog":
		return route{kind: catalogRoute}, nil
	case CollectPath:
		return route{kind: collectRoute}, nil
	}
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return route{}, notHere(path)
	}
	head, last := cutLast(rest)
	repo, noun := cutLast(head)
	if repo == "" {
		return route{}, notHere(path)
	}
	if before, word := cutLast(repo); noun == "uploads" && word == "blobs" && before != "" {
		if last == "" {
			return route{kind: uploadsRoute, repo: before}, nil
		}
		return route{kind: uploadRoute, repo: before, upload: last}, nil
	}
	switch {
	case noun == "blobs" && last == "uploads": // without the slash that the specification wants
		return route{kind: uploadsRoute, repo: repo}, nil
	case noun == "tags" && last == "list":
		return route{kind: tagsRoute, repo: repo}, nil
	case noun == "blobs", noun == "referrers":
		d, err := parseDigest(last)
		if err != nil {
			return route{}, err
		}
		kind := blobRoute
		if noun == "referrers" {
			kind = referrersRoute
		}
		return route{kind: kind, repo: repo, digest: d}, nil
	case noun == "manifests" && strings.Contains(last, ":"):
		d, err := parseDigest(last)
		return route{kind: manifestRoute, repo: repo, digest: d}, err
	case noun == "manifests":
		if !tagRule.MatchString(last) {
			return route{}, invalidTag(last)
		}
		return route{kind: manifestRoute, repo: repo, tag: last}, nil
	}
	return route{}, notHere(path)
}

// cutLast splits a path before its last element.
func cutLast(path string) (before, last string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

func notHere(path string) error {
	return &failure{status: http.StatusNotFound, code: "NAME_UNKNOWN", message: path + " is no path of the registry API"}
}

// parseDigest understands a digest by an algorithm that content can be checked
// by.
func parseDigest(s string) (digest.Digest, error) {
	d, err := digest.Parse(s)
	if err != nil || d.Algorithm() != digest.SHA256 && d.Algorithm() != digest.SHA512 {
		return "", &failure{
			status: http.StatusBadRequest, code: "DIGEST_INVALID",
			message: quote(s) + " is no digest: it is written sha256: or sha512: and as many hexadecimal digits as that has",
		}
	}
	return d, nil
}
