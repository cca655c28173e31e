package store

import (
	"context"
	"errors"
	"path"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/opencontainers/go-digest"
)

// The layout of the distribution project's registry, as far as this package
// writes or reads it without that project's help. It is fixed since 2014.
const layoutRoot = "/docker/registry/v2"

// kind is what a link makes of content in a repository.
type kind int

const (
	layer kind = iota // a blob: layers, configurations, anything
	image             // a manifest
)

func blobDir(d digest.Digest) string {
	hex := d.Encoded()
	return path.Join(layoutRoot, "blobs", d.Algorithm().String(), hex[:2], hex)
}

func blobPath(d digest.Digest) string { return path.Join(blobDir(d), "data") }

func repoDir(repo string) string { return path.Join(layoutRoot, "repositories", repo) }

func linksDir(repo string, k kind) string {
	if k == image {
		return path.Join(repoDir(repo), "_manifests", "revisions")
	}
	return path.Join(repoDir(repo), "_layers")
}

func linkDir(repo string, k kind, d digest.Digest) string {
	return path.Join(linksDir(repo, k), d.Algorithm().String(), d.Encoded())
}

func linkPath(repo string, k kind, d digest.Digest) string {
	return path.Join(linkDir(repo, k, d), "link")
}

func tagPath(repo, tag string) string {
	return path.Join(repoDir(repo), "_manifests", "tags", tag, "current", "link")
}

func uploadsDir(repo string) string { return path.Join(repoDir(repo), "_uploads") }

func uploadDir(repo, id string) string { return path.Join(uploadsDir(repo), id) }

// referrersDir holds one file per manifest whose subject is d. It is the one
// addition to the layout; other programs skip names they do not know that begin
// with an underscore.
func referrersDir(repo string, d digest.Digest) string {
	return path.Join(repoDir(repo), "_referrers", d.Algorithm().String(), d.Encoded())
}

func referrerPath(repo string, subject, referrer digest.Digest) string {
	return path.Join(referrersDir(repo, subject), referrer.Algorithm().String()+"-"+referrer.Encoded())
}

// link is one link of a repository: content known there as digest is stored as
// target, its sha256 digest.
type link struct {
	digest, target digest.Digest
}

// links lists the links of a repository.
func (s *Store) links(ctx context.Context, repo string, k kind) ([]link, error) {
	var out []link
	algorithms, err := s.disk.List(ctx, linksDir(repo, k))
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, dir := range algorithms {
		entries, err := s.disk.List(ctx, dir)
		if notFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			d := digest.NewDigestFromEncoded(digest.Algorithm(path.Base(dir)), path.Base(entry))
			if d.Validate() != nil {
				continue // the rest of a write that was cut short
			}
			target, err := s.target(ctx, repo, k, d)
			if errors.Is(err, ErrBlobUnknown) {
				continue
			}
			if err != nil {
				return nil, err
			}
			out = append(out, link{digest: d, target: target})
		}
	}
	return out, nil
}

// target follows a link to the digest its content is stored by, or returns
// [ErrBlobUnknown].
func (s *Store) target(ctx context.Context, repo string, k kind, d digest.Digest) (digest.Digest, error) {
	raw, err := s.disk.GetContent(ctx, linkPath(repo, k, d))
	if notFound(err) {
		return "", ErrBlobUnknown
	}
	if err != nil {
		return "", err
	}
	target, err := digest.Parse(string(raw))
	if err != nil {
		return "", ErrBlobUnknown
	}
	return target, nil
}

// linkAge returns when a link was last written, or the zero time when it is
// gone.
func (s *Store) linkAge(ctx context.Context, repo string, k kind, d digest.Digest) time.Time {
	fi, err := s.disk.Stat(ctx, linkPath(repo, k, d))
	if err != nil {
		return time.Time{}
	}
	return fi.ModTime()
}

func notFound(err error) bool {
	var missing storagedriver.PathNotFoundError
	return errors.As(err, &missing)
}
