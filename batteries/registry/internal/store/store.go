// Package store keeps image content on a local disk, in the layout of the
// distribution project's registry, version 3: a stock registry pointed at the
// same directory serves the same content.
//
// On top of that project's storage it adds what a registry needs that pushes,
// pulls and collects garbage all at once: content that is acknowledged survives
// kill -9 and power loss, digests by other algorithms than sha256, the index of
// referrers, what each namespace holds and its quota, and removal of garbage
// while pushes go on.
//
// It refuses a second process on the same directory: its locks are in memory.
//
// Invariant: what a link names exists. Content is written before the link to
// it, and removed only after the last link to it, with [Store.gate] between the
// two.
package store

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// MaxImage is the size in bytes of the largest manifest that is accepted: the
// least that the distribution specification lets a registry ask for.
const MaxImage = 4 << 20

// Errors of this package. Callers compare them with errors.Is.
var (
	// ErrBlobUnknown says that a repository does not hold the blob.
	ErrBlobUnknown = errors.New("no such blob")
	// ErrImageUnknown says that a repository holds no manifest of that tag or
	// digest.
	ErrImageUnknown = errors.New("no such image")
	// ErrUploadUnknown says that an upload never began, ended or expired.
	ErrUploadUnknown = errors.New("no such upload")
	// ErrUploadBusy says that another request is writing to the upload.
	ErrUploadBusy = errors.New("another request is writing to this upload")
	// ErrRepositoryUnknown says that nothing was ever pushed to a repository.
	ErrRepositoryUnknown = errors.New("no such repository")
	// ErrNameInvalid says that a repository cannot be called that.
	ErrNameInvalid = errors.New("invalid repository name")
	// ErrDigestInvalid says that content does not have the digest it was given.
	ErrDigestInvalid = errors.New("content does not have this digest")
	// ErrImageInvalid says that a manifest cannot be understood.
	ErrImageInvalid = errors.New("invalid manifest")
)

// MissingError says which blobs a manifest names that its repository lacks.
type MissingError struct{ Digests []digest.Digest }

func (e *MissingError) Error() string {
	return fmt.Sprintf("the manifest names blobs that were not pushed: %v", e.Digests)
}

// QuotaError says that a namespace holds all it may.
type QuotaError struct {
	Namespace   string
	Used, Limit int64 // bytes
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf("namespace %q holds %d of the %d bytes it may", e.Namespace, e.Used, e.Limit)
}

// Options say where a store is and what it allows.
type Options struct {
	// Root is the directory; it is made when missing.
	Root string
	// Quota returns how many bytes a namespace may hold, 0 for no limit. It is
	// called concurrently. Nil means no limits.
	Quota func(namespace string) int64
	// Log gets what goes wrong behind the back of any request. Never nil.
	Log *slog.Logger
}

// Store is one directory of image content. Its methods may be called from any
// goroutine.
type Store struct {
	disk   *disk
	reg    distribution.Namespace
	ledger *ledger
	quota  func(string) int64
	log    *slog.Logger
	lock   *os.File

	// gate is held for reading by whatever writes a link, from finding the
	// content to having written the link, and for writing by the removal of
	// content that no link names.
	gate sync.RWMutex

	// images serialises changes of the manifests, tags and referrers of one
	// repository. Repositories share the locks by hash.
	images [64]sync.Mutex
	seed   maphash.Seed

	mu      sync.Mutex
	active  map[string]struct{}         // uploads a request writes to
	touched map[digest.Digest]time.Time // when a blob was last asked for or linked

	collecting sync.Mutex // one collection at a time
}

// Open returns the store at a directory, after reading what it holds: a few
// seconds for a hundred thousand blobs. It fails when another process has it.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if err := os.MkdirAll(opts.Root, 0o700); err != nil {
		return nil, fmt.Errorf("make the registry's directory: %w", err)
	}
	lock, err := lockDirectory(opts.Root)
	if err != nil {
		return nil, err
	}
	s := &Store{
		ledger: newLedger(), quota: opts.Quota, log: opts.Log, lock: lock, seed: maphash.MakeSeed(),
		active: map[string]struct{}{}, touched: map[digest.Digest]time.Time{},
	}
	if s.quota == nil {
		s.quota = func(string) int64 { return 0 }
	}
	if s.disk, err = openDisk(opts.Root); err != nil {
		lock.Close()
		return nil, err
	}
	if s.reg, err = storage.NewRegistry(ctx, s.disk, storage.EnableDelete); err != nil {
		lock.Close()
		return nil, fmt.Errorf("open the registry's storage: %w", err)
	}
	if err := s.takeStock(ctx); err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

// Close gives the directory free for another process. No other method may be
// called any more.
func (s *Store) Close() error { return s.lock.Close() }

// lockDirectory holds dir until the file it returns is closed or the process
// ends, however it ends.
func lockDirectory(dir string) (*os.File, error) {
	name := filepath.Join(dir, ".lock")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the registry's directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w: another registry process uses this directory: stop it first", name, err)
	}
	return f, nil
}

// takeStock fills the ledger with what the directory holds.
func (s *Store) takeStock(ctx context.Context) error {
	return s.repositories(ctx, func(name string, _ bool) error {
		for _, kind := range []kind{layer, image} {
			links, err := s.links(ctx, name, kind)
			if err != nil {
				return err
			}
			for _, l := range links {
				if size, ok := s.sizeOf(ctx, l.target); ok {
					s.ledger.add(name, kind, l.digest, l.target, size)
				}
			}
		}
		return nil
	})
}

// sizeOf returns the size of content by its sha256 digest, and whether it is
// there.
func (s *Store) sizeOf(ctx context.Context, target digest.Digest) (int64, bool) {
	fi, err := s.disk.Stat(ctx, blobPath(target))
	if err != nil || fi.IsDir() {
		return 0, false
	}
	return fi.Size(), true
}

// repositories calls each with the name of every repository that holds anything,
// and whether it ever held images. The distribution project's own enumeration
// leaves out those that hold blobs only, so far.
func (s *Store) repositories(ctx context.Context, each func(name string, images bool) error) error {
	err := s.walk(ctx, "", each)
	if err != nil {
		return fmt.Errorf("list the repositories: %w", err)
	}
	return nil
}

func (s *Store) walk(ctx context.Context, name string, each func(name string, images bool) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := s.disk.List(ctx, repoDir(name))
	if notFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	slices.Sort(entries)
	var here, images bool
	for _, entry := range entries {
		switch base := path.Base(entry); {
		case base == "_manifests":
			here, images = true, true
		case strings.HasPrefix(base, "_"):
			here = true
		default:
			if err := s.walk(ctx, path.Join(name, base), each); err != nil {
				return err
			}
		}
	}
	if !here || name == "" {
		return nil
	}
	return each(name, images)
}

// Repositories returns the names of all repositories that hold images, in
// lexical order, or of those of one namespace unless that is "".
func (s *Store) Repositories(ctx context.Context, namespace string) ([]string, error) {
	var names []string
	err := s.repositories(ctx, func(name string, images bool) error {
		if !images || namespace != "" && Namespace(name) != namespace {
			return nil
		}
		// Every image has a link by its sha256 digest.
		links, err := s.disk.List(ctx, path.Join(linksDir(name, image), digest.SHA256.String()))
		if err == nil && len(links) > 0 {
			names = append(names, name)
		}
		if notFound(err) {
			err = nil
		}
		return err
	})
	slices.Sort(names)
	return names, err
}

// Holder returns a repository of a namespace that has a blob, or "".
func (s *Store) Holder(namespace string, d digest.Digest) string {
	return s.ledger.source(namespace, d)
}

// Held returns how many bytes each namespace holds.
func (s *Store) Held() map[string]int64 { return s.ledger.total() }

// Used returns how many bytes of content a namespace holds; what several of its
// repositories share counts once.
func (s *Store) Used(namespace string) int64 { return s.ledger.used(namespace) }

// Room returns how many more bytes a namespace may hold, and a *QuotaError when
// that is none. Without a limit it returns -1.
func (s *Store) Room(namespace string) (int64, error) {
	limit := s.quota(namespace)
	if limit == 0 {
		return -1, nil
	}
	used := s.ledger.used(namespace)
	if used >= limit {
		return 0, &QuotaError{Namespace: namespace, Used: used, Limit: limit}
	}
	return limit - used, nil
}

// Free returns how many bytes of the disk below the store are free for it.
func (s *Store) Free() (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(s.disk.root, &fs); err != nil {
		return 0, fmt.Errorf("ask for the free space at %s: %w", s.disk.root, err)
	}
	return int64(fs.Bavail) * fs.Bsize, nil
}

// Namespace returns the part of a repository's name before the first slash:
// what quotas are counted by.
func Namespace(repository string) string {
	ns, _, _ := strings.Cut(repository, "/")
	return ns
}

// Repo is one repository of a store. It holds no state and may be used from any
// goroutine.
type Repo struct {
	s    *Store
	name reference.Named
}

// nameRule is the specification's (distribution-spec 1.1, "Pulling manifests"),
// which is stricter than that of the reference package: no port, no capitals.
var nameRule = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

// Repo returns the repository of that name, whether or not it exists, or
// [ErrNameInvalid].
func (s *Store) Repo(name string) (*Repo, error) {
	if !nameRule.MatchString(name) || len(name) > 255 {
		return nil, fmt.Errorf("%w: %q", ErrNameInvalid, name)
	}
	named, err := reference.WithName(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrNameInvalid, name, err)
	}
	return &Repo{s: s, name: named}, nil
}

// Name returns the name of the repository.
func (r *Repo) Name() string { return r.name.Name() }

// Namespace returns the part of its name before the first slash.
func (r *Repo) Namespace() string { return Namespace(r.name.Name()) }

// storage returns the distribution project's view of the repository, which is
// cheap to make and bound to one request.
func (r *Repo) storage(ctx context.Context) (distribution.Repository, error) {
	repo, err := r.s.reg.Repository(ctx, r.name)
	if err != nil {
		return nil, fmt.Errorf("open repository %q: %w", r.Name(), err)
	}
	return repo, nil
}

// lockImages holds the manifests and tags of the repository until the function
// it returns is called, and keeps the collector from content meanwhile.
func (r *Repo) lockImages() (unlock func()) {
	m := &r.s.images[maphash.String(r.s.seed, r.Name())%uint64(len(r.s.images))]
	r.s.gate.RLock()
	m.Lock()
	return func() {
		m.Unlock()
		r.s.gate.RUnlock()
	}
}

// touch notes that somebody counts on these blobs, so that the collector lets
// them be for a while.
func (s *Store) touch(digests ...digest.Digest) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range digests {
		s.touched[d] = now
	}
}

// Room is [Store.Room] for the repository's namespace.
func (r *Repo) Room() (int64, error) { return r.s.Room(r.Namespace()) }
