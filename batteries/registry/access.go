package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"

	"github.com/emerald-platform/emerald/batteries/registry/internal/api"
	"github.com/emerald-platform/emerald/batteries/registry/internal/upstream"
)

// How long the cluster's answers are believed. A token that was revoked and a
// role that was taken away work on for that long.
const (
	knownFor   = time.Minute
	allowedFor = 20 * time.Second
	refusedFor = 5 * time.Second // so that a new role helps at once

	remembered = 4096 // answers of each kind
)

// Audience is what tokens for the registry are made for.
func Audience(domain string) string { return "registry." + domain }

// access decides who a caller is and what it may do, by asking the cluster.
type access struct {
	audience string
	tokens   authenticationclient.TokenReviewInterface
	reviews  authorizationclient.SubjectAccessReviewInterface
	copies   func(repository string) bool

	callers   *cache.LRUExpireCache // sha256 of a token → api.Caller, or nil for a wrong one
	decisions *cache.LRUExpireCache // question → bool
	flights   singleflight.Group
}

func newAccess(kube *rest.Config, domain string, copies func(string) bool) (*access, error) {
	kube = rest.CopyConfig(kube)
	kube.QPS, kube.Burst = 200, 400 // a node that starts pulls everything at once
	kube.Timeout = 10 * time.Second
	authn, err := authenticationclient.NewForConfig(kube)
	if err != nil {
		return nil, fmt.Errorf("make a client for token reviews: %w", err)
	}
	authz, err := authorizationclient.NewForConfig(kube)
	if err != nil {
		return nil, fmt.Errorf("make a client for access reviews: %w", err)
	}
	return &access{
		audience: Audience(domain), tokens: authn.TokenReviews(), reviews: authz.SubjectAccessReviews(), copies: copies,
		callers: cache.NewLRUExpireCache(remembered), decisions: cache.NewLRUExpireCache(remembered),
	}, nil
}

// authenticate finds out who sent a request by the token it carries, as password
// or as bearer. User names mean nothing.
func (a *access) authenticate(r *http.Request) (api.Caller, error) {
	token, ok := tokenOf(r)
	if !ok {
		return api.Caller{}, api.ErrUnauthenticated
	}
	sum := sha256.Sum256([]byte(token))
	key := hex.EncodeToString(sum[:]) // so that no token lies around in memory
	known, ok := a.callers.Get(key)
	if !ok {
		var err error
		// Whoever asked first may leave; the others still want the answer.
		known, err, _ = a.flights.Do("token "+key, func() (any, error) {
			return a.review(context.WithoutCancel(r.Context()), token, key)
		})
		if err != nil {
			return api.Caller{}, err
		}
	}
	caller := known.(*api.Caller)
	if caller == nil {
		return api.Caller{}, fmt.Errorf("%w: the password is no valid token for %s", api.ErrUnauthenticated, a.audience)
	}
	return *caller, nil
}

// tokenOf returns the token that a request carries.
func tokenOf(r *http.Request) (string, bool) {
	if _, password, ok := r.BasicAuth(); ok {
		return password, password != ""
	}
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return token, ok && strings.EqualFold(scheme, "Bearer") && token != ""
}

// review asks the cluster whose a token is. It returns nil for a wrong one.
func (a *access) review(ctx context.Context, token, key string) (*api.Caller, error) {
	out, err := a.tokens.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{a.audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("%w: ask whose a token is: %w", api.ErrUnavailable, err)
	}
	// A server that knows nothing of audiences returns none: its word means
	// nothing here.
	if !out.Status.Authenticated || !slices.Contains(out.Status.Audiences, a.audience) {
		a.callers.Add(key, (*api.Caller)(nil), refusedFor)
		return nil, nil
	}
	c := &api.Caller{Name: out.Status.User.Username, UID: out.Status.User.UID, Groups: out.Status.User.Groups, Extra: map[string][]string{}}
	for k, v := range out.Status.User.Extra {
		c.Extra[k] = v
	}
	a.callers.Add(key, c, knownFor)
	return c, nil
}

// authorize tells whether a caller may do something with a repository:
//
//   - a service account may pull and push everything in its own namespace;
//   - everybody who is logged in may pull copies of other registries;
//   - the rest is a matter of roles on repositories.registry.emerald.dev in the
//     namespace, and on upstreams.registry.emerald.dev for such copies.
func (a *access) authorize(ctx context.Context, c api.Caller, action api.Action, repository string) (bool, error) {
	ns, name, _ := strings.Cut(repository, "/")
	if a.copies(repository) {
		if action == api.Pull || action == api.List {
			return true, nil
		}
		return a.ask(ctx, c, authorizationv1.ResourceAttributes{Resource: "upstreams", Name: ns, Verb: string(action)})
	}
	if upstream.Foreign(repository) {
		// Not a namespace, and not configured: nobody can have rights there.
		return false, nil
	}
	if home, ok := homeOf(c); ok && home == ns && (action == api.Pull || action == api.Push || action == api.List) {
		return true, nil
	}
	attrs := authorizationv1.ResourceAttributes{Resource: "repositories", Namespace: ns, Name: name, Verb: string(action)}
	if repository == api.Everywhere {
		attrs.Namespace = ""
	}
	if name == api.Everywhere {
		attrs.Name = ""
	}
	return a.ask(ctx, c, attrs)
}

// homeOf returns the namespace of a service account.
func homeOf(c api.Caller) (string, bool) {
	rest, ok := strings.CutPrefix(c.Name, "system:serviceaccount:")
	if !ok {
		return "", false
	}
	ns, _, ok := strings.Cut(rest, ":")
	return ns, ok
}

// ask asks the cluster's authorizers.
func (a *access) ask(ctx context.Context, c api.Caller, attrs authorizationv1.ResourceAttributes) (bool, error) {
	attrs.Group = "registry.emerald.dev"
	question := strings.Join([]string{
		c.Name, c.UID, strings.Join(c.Groups, "\x01"), attrs.Verb, attrs.Resource, attrs.Namespace, attrs.Name,
	}, "\x00")
	if answer, ok := a.decisions.Get(question); ok {
		return answer.(bool), nil
	}
	extra := map[string]authorizationv1.ExtraValue{}
	for k, v := range c.Extra {
		extra[k] = v
	}
	out, err := a.reviews.Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: c.Name, UID: c.UID, Groups: c.Groups, Extra: extra, ResourceAttributes: &attrs,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return false, err
		}
		return false, fmt.Errorf("%w: ask what %s may do: %w", api.ErrUnavailable, c.Name, err)
	}
	answer := out.Status.Allowed && !out.Status.Denied
	ttl := refusedFor
	if answer {
		ttl = allowedFor
	}
	a.decisions.Add(question, answer, ttl)
	return answer, nil
}
