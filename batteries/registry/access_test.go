package registry

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/emerald-platform/emerald/batteries/registry/internal/api"
)

// cluster answers reviews as an API server would, and counts them.
type cluster struct {
	*access
	asked  int
	down   bool
	grants map[string]bool // "user verb resource namespace name"
}

func newCluster() *cluster {
	c := &cluster{grants: map[string]bool{}}
	set := fake.NewClientset()
	set.PrependReactor("create", "tokenreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		c.asked++
		if c.down {
			return true, nil, errors.New("connection refused")
		}
		review := a.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenReview).DeepCopy()
		user, audience, _ := strings.Cut(review.Spec.Token, " for ")
		if audience == review.Spec.Audiences[0] || audience == "" {
			review.Status.Authenticated = audience != "" || user == "old"
			review.Status.User.Username = user
			if audience != "" {
				review.Status.Audiences = []string{audience}
			}
		}
		return true, review, nil
	})
	set.PrependReactor("create", "subjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		c.asked++
		if c.down {
			return true, nil, errors.New("connection refused")
		}
		review := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview).DeepCopy()
		at := review.Spec.ResourceAttributes
		review.Status.Allowed = at.Group == "registry.emerald.dev" &&
			c.grants[strings.Join([]string{review.Spec.User, at.Verb, at.Resource, at.Namespace, at.Name}, " ")]
		return true, review, nil
	})
	c.access = &access{
		audience: "registry.test", tokens: set.AuthenticationV1().TokenReviews(), reviews: set.AuthorizationV1().SubjectAccessReviews(),
		copies:  func(repository string) bool { return strings.HasPrefix(repository, "docker.io/") },
		callers: cache.NewLRUExpireCache(10), decisions: cache.NewLRUExpireCache(100),
	}
	return c
}

func TestAuthenticate(t *testing.T) {
	password := func(p string) func(*http.Request) { return func(r *http.Request) { r.SetBasicAuth("anybody", p) } }
	header := func(h string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", h) }
	}
	for name, tc := range map[string]struct {
		send func(*http.Request)
		who  string
	}{
		"a password":                        {password("jane for registry.test"), "jane"},
		"a bearer token":                    {header("bearer jane for registry.test"), "jane"},
		"nothing":                           {func(*http.Request) {}, ""},
		"an empty password":                 {password(""), ""},
		"an empty token":                    {header("Bearer "), ""},
		"another scheme":                    {header("Digest jane"), ""},
		"a token for the API server":        {password("jane for kubernetes"), ""},
		"a token no server stands for":      {password("jane"), ""},
		"a server that ignores audiences":   {password("old"), ""},
		"half a header":                     {header("Basic"), ""},
		"a header that is no base64 at all": {header("Basic !"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster()
			for range 2 { // the second answer comes from memory
				req, err := http.NewRequest("GET", "/v2/", nil)
				if err != nil {
					t.Fatal(err)
				}
				tc.send(req)
				got, err := c.authenticate(req)
				if tc.who == "" && !errors.Is(err, api.ErrUnauthenticated) {
					t.Errorf("%+v, %v; want ErrUnauthenticated", got, err)
				}
				if tc.who != "" && (err != nil || got.Name != tc.who) {
					t.Errorf("%+v, %v; want %s", got, err, tc.who)
				}
			}
			if c.asked > 1 {
				t.Errorf("the cluster was asked %d times", c.asked)
			}
		})
	}
}

func TestUnavailable(t *testing.T) {
	c := newCluster()
	req, err := http.NewRequest("GET", "/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("x", "jane for registry.test")
	c.down = true
	if _, err := c.authenticate(req); !errors.Is(err, api.ErrUnavailable) || strings.Contains(err.Error(), "jane") {
		t.Errorf("%v; want ErrUnavailable without the token", err)
	}
	if _, err := c.authorize(context.Background(), api.Caller{Name: "jane"}, api.Pull, "demo/a"); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("%v; want ErrUnavailable", err)
	}
	c.down = false
	if got, err := c.authenticate(req); err != nil || got.Name != "jane" {
		t.Errorf("%+v, %v once it answers again", got, err)
	}
}

func TestAuthorize(t *testing.T) {
	const sa = "system:serviceaccount:demo:default"
	c := newCluster()
	for _, grant := range []string{
		"jane get repositories demo a", "jane update repositories demo a/b", "jane list repositories demo ", "root list repositories  ",
		"root deletecollection repositories  ", "system:serviceaccount:emerald-build:build update upstreams  docker.io",
	} {
		c.grants[grant] = true
	}
	type question struct {
		who        string
		action     api.Action
		repository string
	}
	want := map[question]bool{
		{sa, api.Pull, "demo/a"}:                     true,
		{sa, api.Push, "demo/a/b/c"}:                 true,
		{sa, api.List, "demo/*"}:                     true,
		{sa, api.Delete, "demo/a"}:                   false,
		{sa, api.List, "*"}:                          false,
		{sa, api.Collect, "*"}:                       false,
		{sa, api.Pull, "other/a"}:                    false,
		{sa, api.Push, "demolition/a"}:               false,
		{sa, api.Pull, "docker.io/library/debian"}:   true,
		{sa, api.Push, "docker.io/library/debian"}:   false,
		{sa, api.Pull, "quay.io/a/b"}:                false,
		{"jane", api.Pull, "demo/a"}:                 true,
		{"jane", api.Pull, "demo/a/b"}:               false,
		{"jane", api.Push, "demo/a/b"}:               true,
		{"jane", api.List, "demo/*"}:                 true,
		{"jane", api.List, "*"}:                      false,
		{"root", api.List, "*"}:                      true,
		{"root", api.Collect, "*"}:                   true,
		{"root", api.Pull, "quay.io/a/b"}:            false,
		{"system:serviceaccount:", api.Pull, "/a"}:   false,
		{"system:serviceaccount:x", api.Pull, "x/a"}: false,
		{"system:serviceaccount:emerald-build:build", api.Push, "docker.io/library/debian"}: true,
		{"system:serviceaccount:emerald-build:build", api.Push, "default/app"}:              false,
	}
	got := map[question]bool{}
	for q := range want {
		for range 2 {
			ok, err := c.authorize(context.Background(), api.Caller{Name: q.who}, q.action, q.repository)
			if err != nil {
				t.Fatal(err)
			}
			got[q] = ok
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("who may do what (-want +got):\n%s", diff)
	}
	if c.asked > len(want) {
		t.Errorf("the cluster was asked %d times about %d questions", c.asked, len(want))
	}
}

// TestAuthorizeTellsGroupsApart shows that an answer about one user is not given
// for another one of the same name.
func TestAuthorizeTellsGroupsApart(t *testing.T) {
	c := newCluster()
	before := c.asked
	for _, groups := range [][]string{{"a"}, {"b"}, {"a", "b"}} {
		if _, err := c.authorize(context.Background(), api.Caller{Name: "jane", Groups: groups}, api.Pull, "demo/a"); err != nil {
			t.Fatal(err)
		}
	}
	if c.asked-before != 3 {
		t.Errorf("three users were asked about %d times", c.asked-before)
	}
}
