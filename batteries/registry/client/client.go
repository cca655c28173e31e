// Package client is how programs outside the cluster use the platform's image
// registry: get a password that lasts for a while, see what is stored, remove
// it, and push and pull single pieces.
//
// It promises to keep passwords out of arguments, errors and logs, and to speak
// only with the registry of the cluster it was given. It refuses to be a general
// client of the distribution API: there are good ones.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	kubeclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/kit/reach"
)

// Account is a service account whose rights are used.
type Account struct{ Namespace, Name string }

// Admin is the account that may do everything with every repository.
var Admin = Account{Namespace: "emerald-registry", Name: "registry-admin"}

// Credentials are a user name and a password for the registry that last for a
// while.
type Credentials struct {
	Server   string // host name of the registry
	Username string
	Password string
	Expires  time.Time
}

// ErrNotFound says that the registry has no such thing.
var ErrNotFound = errors.New("it does not exist")

// Error is an answer of the registry that is no success.
type Error struct {
	Status  int    // of HTTP
	Code    string // of the distribution specification, "" when the answer had none
	Message string // for people
}

func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("the registry answers with status %d", e.Status)
	}
	return e.Message
}

// Is makes errors.Is(err, ErrNotFound) true for status 404.
func (e *Error) Is(target error) bool {
	return target == ErrNotFound && e.Status == http.StatusNotFound
}

// Server returns the host name of the registry of a cluster.
func Server(ctx context.Context, kube *rest.Config) (string, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return "", fmt.Errorf("know the platform's types: %w", err)
	}
	c, err := kubeclient.New(kube, kubeclient.Options{Scheme: scheme})
	if err != nil {
		return "", fmt.Errorf("make a client of the cluster: %w", err)
	}
	platform := &v1alpha1.Platform{}
	if err := c.Get(ctx, kubeclient.ObjectKey{Name: v1alpha1.PlatformName}, platform); err != nil {
		return "", fmt.Errorf("read the platform's domain: %w", err)
	}
	if platform.Status.Domain == "" {
		return "", errors.New("read the platform's domain: it is not set up yet: see: emerald status")
	}
	return "registry." + platform.Status.Domain, nil
}

// Login returns a password with the rights of an account. The cluster may shorten
// its life; it is at least ten minutes.
func Login(ctx context.Context, kube *rest.Config, server string, a Account, life time.Duration) (Credentials, error) {
	k, err := kubernetes.NewForConfig(kube)
	if err != nil {
		return Credentials{}, fmt.Errorf("make a client of the cluster: %w", err)
	}
	seconds := int64(max(life, 10*time.Minute).Seconds())
	out, err := k.CoreV1().ServiceAccounts(a.Namespace).CreateToken(ctx, a.Name, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{server}, ExpirationSeconds: &seconds},
	}, metav1.CreateOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return Credentials{}, fmt.Errorf("service account %q of namespace %q does not exist: make it with: emerald kubectl create serviceaccount -n %s %s", a.Name, a.Namespace, a.Namespace, a.Name)
	case err != nil:
		return Credentials{}, fmt.Errorf("get a token of service account %q of namespace %q: %w", a.Name, a.Namespace, err)
	}
	return Credentials{Server: server, Username: "serviceaccount", Password: out.Status.Token, Expires: out.Status.ExpirationTimestamp.Time}, nil
}

// Client speaks with the registry. It may be used from any goroutine.
type Client struct {
	http  *http.Client
	creds Credentials
}

// New returns a client that reaches the registry through the platform's gateway.
// With no password it is anonymous.
func New(ctx context.Context, kube *rest.Config, creds Credentials) (*Client, error) {
	route, err := reach.New(ctx, kube)
	if err != nil {
		return nil, err
	}
	return &Client{http: &http.Client{Transport: route.Transport()}, creds: creds}, nil
}

// Connect logs in with an account for as long as a command lasts, and returns a
// client.
func Connect(ctx context.Context, kube *rest.Config, a Account) (*Client, error) {
	server, err := Server(ctx, kube)
	if err != nil {
		return nil, err
	}
	creds, err := Login(ctx, kube, server, a, 0)
	if err != nil {
		return nil, err
	}
	return New(ctx, kube, creds)
}

// With returns a client that goes the same way with other credentials.
func (c *Client) With(creds Credentials) *Client { return &Client{http: c.http, creds: creds} }

// Close lets go of connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Server returns the host name of the registry.
func (c *Client) Server() string { return c.creds.Server }

// Response is an answer that was a success.
type Response struct {
	Header http.Header
	Body   []byte
}

// maxAnswer is how many bytes of an answer are read at most.
const maxAnswer = 64 << 20

// Do sends a request. The path begins with a slash; body may be nil. An answer
// that is no success is an *[Error].
func (c *Client) Do(ctx context.Context, method, path string, header http.Header, body []byte) (*Response, error) {
	target, err := url.Parse("https://" + c.creds.Server)
	if err == nil {
		target, err = target.Parse(path)
	}
	if err != nil || target.Host != c.creds.Server {
		return nil, fmt.Errorf("ask the registry for %q: it is no path there", path)
	}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask the registry for %q: %w", path, err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if c.creds.Password != "" {
		req.SetBasicAuth(c.creds.Username, c.creds.Password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the registry: %w: see: emerald status", err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the registry's answer to %s %s: %w", method, target.Path, err)
	}
	if resp.StatusCode >= 300 {
		return nil, refusal(resp.StatusCode, raw)
	}
	return &Response{Header: resp.Header, Body: raw}, nil
}

// refusal understands the body of an answer that is no success.
func refusal(status int, raw []byte) *Error {
	var body struct {
		Errors []struct{ Code, Message string } `json:"errors"`
	}
	e := &Error{Status: status}
	if json.Unmarshal(raw, &body) == nil && len(body.Errors) > 0 {
		e.Code, e.Message = body.Errors[0].Code, body.Errors[0].Message
	}
	return e
}

// listing gets all pages of a listing.
func listing[T any](ctx context.Context, c *Client, path string, names func(T) []string) ([]string, error) {
	var out []string
	for path != "" {
		resp, err := c.Do(ctx, http.MethodGet, path, nil, nil)
		if err != nil {
			return nil, err
		}
		var page T
		if err := json.Unmarshal(resp.Body, &page); err != nil {
			return nil, fmt.Errorf("understand the registry's answer to %s: %w", path, err)
		}
		out = append(out, names(page)...)
		path = nextPage(resp.Header.Get("Link"))
	}
	return out, nil
}

// nextPage returns the target of a Link header (RFC 8288), or "".
func nextPage(link string) string {
	target, rest, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if !ok || !strings.Contains(rest, `rel="next"`) {
		return ""
	}
	return target
}

// Repositories lists the repositories of a namespace, or of all unless it is "".
func (c *Client) Repositories(ctx context.Context, namespace string) ([]string, error) {
	type catalog struct{ Repositories []string }
	q := url.Values{}
	if namespace != "" {
		q.Set("namespace", namespace)
	}
	return listing(ctx, c, "/v2/_catalog?"+q.Encode(), func(p catalog) []string { return p.Repositories })
}

// Tags lists the tags of a repository.
func (c *Client) Tags(ctx context.Context, repository string) ([]string, error) {
	type tags struct{ Tags []string }
	return listing(ctx, c, "/v2/"+repository+"/tags/list", func(p tags) []string { return p.Tags })
}

// Digest returns the digest of the image that a tag names.
func (c *Client) Digest(ctx context.Context, repository, tag string) (digest.Digest, error) {
	resp, err := c.Do(ctx, http.MethodHead, "/v2/"+repository+"/manifests/"+tag, nil, nil)
	if err != nil {
		return "", err
	}
	return digest.Digest(resp.Header.Get("Docker-Content-Digest")), nil
}

// Delete removes a tag, or an image with all its tags when it is named by its
// digest.
func (c *Client) Delete(ctx context.Context, repository, reference string) error {
	_, err := c.Do(ctx, http.MethodDelete, "/v2/"+repository+"/manifests/"+reference, nil, nil)
	return err
}

// Collected is what a garbage collection removed.
type Collected struct {
	Images  int   `json:"images"`
	Blobs   int   `json:"blobs"`
	Uploads int   `json:"uploads"`
	Bytes   int64 `json:"bytes"`
}

// Collect has the registry remove garbage now, and returns what that was.
func (c *Client) Collect(ctx context.Context) (Collected, error) {
	var out Collected
	resp, err := c.Do(ctx, http.MethodPost, "/emerald/v1/collect", nil, nil)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(resp.Body, &out); err != nil {
		return out, fmt.Errorf("understand what the registry removed: %w", err)
	}
	return out, nil
}
