// Package upstream copies images of other registries into the store when
// somebody asks for them, so that the next one is served from the store, whether
// or not the other registry still answers.
//
// The repository docker.io/library/debian of the store is the copy of that
// repository of that registry. A tag is compared with its origin when the last
// comparison is older than the TTL; a manifest by digest, and a blob, never
// change and are fetched once.
//
// It refuses registries that it was not told about: the registry must not reach
// out to whatever host somebody puts into a name.
//
// Invariant: what is stored is never worse than what was stored. A tag moves
// only to a manifest that was fetched whole; when its origin cannot be reached,
// or no longer has it, the copy stays.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/singleflight"

	"github.com/emerald-platform/emerald/batteries/registry/internal/store"
)

// ErrUnknown says that the other registry has no such image, or hides it.
var ErrUnknown = errors.New("the other registry has no such image")

// UnreachableError says that another registry was asked and did not answer.
type UnreachableError struct {
	Host string
	Err  error
}

func (e *UnreachableError) Error() string { return fmt.Sprintf("reach %s: %v", e.Host, e.Err) }

// Unwrap returns why.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Outcome says how a request for a copied image ended, for counting.
type Outcome string

// The outcomes.
const (
	Hit   Outcome = "hit"   // served from the store without asking
	Same  Outcome = "same"  // asked, and the copy is up to date
	Miss  Outcome = "miss"  // fetched
	Stale Outcome = "stale" // served from the store, the other registry does not answer
	Error Outcome = "error" // not stored, and cannot be fetched
)

// Host is another registry.
type Host struct {
	// Name begins the names of its images, for example "docker.io".
	Name string
	// Endpoint is where it answers, for example "https://mirror.example.org".
	// "" means https at its name, and at registry-1.docker.io for docker.io.
	Endpoint string
}

// Options say which registries there are and how to reach them.
type Options struct {
	Hosts []Host
	// Transport returns what to send requests with; it knows the machine's
	// certificate authorities and proxies. It is called for every fetch.
	Transport func(context.Context) http.RoundTripper
	// TTL is how long a tag is trusted without asking.
	TTL time.Duration
	// MaxBlob is the size in bytes of the largest blob that is copied.
	MaxBlob int64
	// Count is called once per request with its outcome. Nil counts nothing.
	Count func(host string, o Outcome)
	// Log gets failures behind which a stored copy was served. Never nil.
	Log *slog.Logger
}

// Timeouts of talking with other registries.
const (
	resolveTimeout = 20 * time.Second // a few round trips, with a token in between
	stallTimeout   = time.Minute      // without a byte
	downFor        = 30 * time.Second // until a registry that failed is asked again
)

// Puller copies images. Its methods may be called from any goroutine.
type Puller struct {
	opts    Options
	hosts   map[string]Host
	flights singleflight.Group

	mu      sync.Mutex
	checked map[string]time.Time         // when a tag was last compared, by repository:tag
	down    map[string]*UnreachableError // registries that failed
	until   map[string]time.Time         // when to ask those again
	fetches map[string]chan struct{}     // blobs on their way, closed at the end
	sizes   map[digest.Digest]int64      // of blobs, as manifests said

	client   remotes.Resolver  // keeps the tokens that other registries gave
	reaching http.RoundTripper // that client sends with
}

// New returns a Puller of the registries in the options.
func New(opts Options) *Puller {
	p := &Puller{
		opts: opts, hosts: map[string]Host{}, checked: map[string]time.Time{}, down: map[string]*UnreachableError{},
		until: map[string]time.Time{}, fetches: map[string]chan struct{}{}, sizes: map[digest.Digest]int64{},
	}
	if p.opts.Count == nil {
		p.opts.Count = func(string, Outcome) {}
	}
	for _, h := range opts.Hosts {
		p.hosts[h.Name] = h
	}
	return p
}

// Foreign tells whether a repository is named after another registry, whether
// or not it may be copied.
func Foreign(repository string) bool { return strings.Contains(store.Namespace(repository), ".") }

// Copies tells whether a repository is a copy of one this Puller knows.
func (p *Puller) Copies(repository string) bool {
	_, ok := p.hosts[store.Namespace(repository)]
	return ok
}

// Names returns the names of the registries this Puller knows.
func (p *Puller) Names() []string {
	names := make([]string, len(p.opts.Hosts))
	for i, h := range p.opts.Hosts {
		names[i] = h.Name
	}
	return names
}

// Tag makes sure that a tag of a repository is stored, as fresh as the TTL asks,
// and returns its digest. It returns [ErrUnknown] or an *[UnreachableError] when
// there is no copy and none can be made.
func (p *Puller) Tag(ctx context.Context, r *store.Repo, tag string) (digest.Digest, error) {
	host, key := r.Namespace(), r.Name()+":"+tag
	stored, err := r.Resolve(ctx, tag)
	if err != nil && !errors.Is(err, store.ErrImageUnknown) {
		return "", err
	}
	have := err == nil
	if have && p.fresh(key) {
		p.opts.Count(host, Hit)
		return stored, nil
	}
	// Whoever asked first may leave; the others still want the answer.
	got, err, _ := p.flights.Do(key, func() (any, error) {
		return p.compare(context.WithoutCancel(ctx), r, tag, stored)
	})
	if err == nil {
		p.confirm(key)
		return got.(digest.Digest), nil
	}
	if have {
		if !errors.Is(err, ErrUnknown) {
			p.opts.Log.Warn("serve the stored copy of a tag that cannot be compared", "image", key, "err", err)
		}
		p.opts.Count(host, Stale)
		return stored, nil
	}
	p.opts.Count(host, Error)
	return "", err
}

// compare asks for the digest of a tag, fetches it if it is not the stored one,
// and returns it.
func (p *Puller) compare(ctx context.Context, r *store.Repo, tag string, stored digest.Digest) (digest.Digest, error) {
	if err := p.downNow(r.Namespace()); err != nil {
		return "", err
	}
	resolver := p.resolver(ctx)
	resolving, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	name, desc, err := resolver.Resolve(resolving, r.Name()+":"+tag)
	if err != nil {
		return "", p.explain(r.Namespace(), err)
	}
	if desc.Digest == stored {
		if _, err := r.Image(ctx, stored); err == nil {
			p.opts.Count(r.Namespace(), Same)
			return stored, nil
		}
	}
	return desc.Digest, p.fetchImage(ctx, resolver, name, r, desc, tag)
}

// Image makes sure that a manifest is stored. It returns [ErrUnknown] or an
// *[UnreachableError] when it is not and cannot be fetched.
func (p *Puller) Image(ctx context.Context, r *store.Repo, d digest.Digest) error {
	_, err := r.Image(ctx, d)
	if err == nil {
		p.opts.Count(r.Namespace(), Hit)
	}
	if !errors.Is(err, store.ErrImageUnknown) {
		return err
	}
	_, err, _ = p.flights.Do(r.Name()+"@"+d.String(), func() (any, error) {
		return nil, p.fetchDigest(context.WithoutCancel(ctx), r, d)
	})
	if err != nil {
		p.opts.Count(r.Namespace(), Error)
	}
	return err
}

func (p *Puller) fetchDigest(ctx context.Context, r *store.Repo, d digest.Digest) error {
	if err := p.downNow(r.Namespace()); err != nil {
		return err
	}
	resolver := p.resolver(ctx)
	resolving, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	name, desc, err := resolver.Resolve(resolving, r.Name()+"@"+d.String())
	if err != nil {
		return p.explain(r.Namespace(), err)
	}
	return p.fetchImage(ctx, resolver, name, r, desc, "")
}

// fetchImage stores one manifest, tagged unless tag is "".
func (p *Puller) fetchImage(ctx context.Context, resolver remotes.Resolver, name string, r *store.Repo, desc v1.Descriptor, tag string) error {
	fetcher, err := resolver.Fetcher(ctx, name)
	if err != nil {
		return p.explain(r.Namespace(), err)
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	body, err := fetcher.Fetch(ctx, desc)
	if err != nil {
		return p.explain(r.Namespace(), err)
	}
	defer body.Close()
	content, err := io.ReadAll(io.LimitReader(body, store.MaxImage+1))
	if err != nil {
		return p.explain(r.Namespace(), err)
	}
	image := store.Pushed{MediaType: desc.MediaType, Content: content, Digest: desc.Digest, Sparse: true}
	if tag != "" {
		image.Tags = []string{tag}
	}
	if _, _, err := r.Put(ctx, image); err != nil {
		return fmt.Errorf("keep a copy of %s: %w", name, err)
	}
	p.remember(content)
	p.opts.Count(r.Namespace(), Miss)
	return nil
}

// resolver returns the client of the other registries. It lives as long as the
// way to reach them is the same.
func (p *Puller) resolver(ctx context.Context) remotes.Resolver {
	transport := p.opts.Transport(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil && p.reaching == transport {
		return p.client
	}
	client := &http.Client{Transport: transport}
	authorizer := docker.NewDockerAuthorizer(docker.WithAuthClient(client))
	p.reaching = transport
	p.client = docker.NewResolver(docker.ResolverOptions{Hosts: func(name string) ([]docker.RegistryHost, error) {
		host := docker.RegistryHost{
			Client: client, Authorizer: authorizer, Host: name, Scheme: "https", Path: "/v2",
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		}
		if name == "docker.io" {
			host.Host = "registry-1.docker.io"
		}
		if endpoint := p.hosts[name].Endpoint; endpoint != "" {
			u, err := url.Parse(endpoint)
			if err != nil {
				return nil, fmt.Errorf("parse the endpoint of %s: %w", name, err)
			}
			host.Scheme, host.Host, host.Path = u.Scheme, u.Host, strings.TrimSuffix(u.Path, "/")+"/v2"
		}
		return []docker.RegistryHost{host}, nil
	}})
	return p.client
}

// explain turns what a client returned into [ErrUnknown] or an
// *[UnreachableError], and remembers that a registry does not answer.
func (p *Puller) explain(host string, err error) error {
	var status remoteerrors.ErrUnexpectedStatus
	switch {
	case errdefs.IsNotFound(err):
		return ErrUnknown
	case errors.Is(err, docker.ErrInvalidAuthorization),
		errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden):
		// Many registries do not tell apart what is hidden and what is not.
		return fmt.Errorf("%w, or it wants a password: %w", ErrUnknown, err)
	}
	unreachable := &UnreachableError{Host: host, Err: err}
	var transport net.Error
	if errors.As(err, &transport) {
		p.mu.Lock()
		p.down[host], p.until[host] = unreachable, time.Now().Add(downFor)
		p.mu.Unlock()
	}
	return unreachable
}

// downNow returns why a registry did not answer a moment ago, or nil.
func (p *Puller) downNow(host string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.down[host]; err != nil && time.Now().Before(p.until[host]) {
		return err
	}
	return nil
}

// maxRemembered bounds each of the memories below.
const maxRemembered = 1 << 14

func (p *Puller) fresh(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.checked[key]) < p.opts.TTL
}

func (p *Puller) confirm(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.checked) > maxRemembered {
		clear(p.checked)
	}
	p.checked[key] = time.Now()
}
