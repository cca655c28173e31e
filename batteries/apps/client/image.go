package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/distribution/reference"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/kit/reach"
)

// Image is what a registry says about an image.
type Image struct {
	Ref  string // by digest where the registry was reached, else as given
	User v1alpha1.ImageUserKind
	Port int32 // the one TCP port it exposes, else 0
}

// ErrNoImage says that the registry has no such image.
var ErrNoImage = errors.New("the registry has no such image")

// ErrDenied says that the registry does not let the caller read the image.
var ErrDenied = errors.New("the registry does not let you read it")

// ErrUnreachable says that the registry could not be asked from here. The
// cluster may still be able to pull from it.
var ErrUnreachable = errors.New("the registry cannot be asked from here")

// Resolve asks an image's registry what the reference means: which content, and
// how it wants to run. The platform's own registry is asked with the rights of
// the namespace, others without any. The error is [ErrNoImage], [ErrDenied],
// [ErrUnreachable], or about the reference.
func (c *Client) Resolve(ctx context.Context, namespace, image string) (Image, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return Image{}, fmt.Errorf("image %q is no reference: %w: write it like registry.emerald.localhost/default/web:1", image, err)
	}
	named = reference.TagNameOnly(named)
	ctx, cancel := context.WithTimeoutCause(log.WithLogger(ctx, quiet()), askRegistry, errSlow)
	defer cancel()
	opts := docker.ResolverOptions{}
	hosts := []docker.RegistryOpt{docker.WithClient(&http.Client{Timeout: time.Minute})}
	if domain, err := c.Domain(ctx); err == nil && reference.Domain(named) == "registry."+domain {
		route, err := reach.New(ctx, c.kube)
		if err != nil {
			return Image{}, fmt.Errorf("find the platform's registry: %w", err)
		}
		platform := &http.Client{Timeout: time.Minute, Transport: route.Transport()}
		token, err := c.registryToken(ctx, namespace, reference.Domain(named))
		if err != nil {
			return Image{}, err
		}
		hosts = []docker.RegistryOpt{
			docker.WithClient(platform),
			docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthClient(platform),
				docker.WithAuthCreds(func(string) (string, string, error) { return "token", token, nil }))),
		}
	}
	opts.Hosts = docker.ConfigureDefaultRegistries(hosts...)
	resolver := docker.NewResolver(opts)
	_, top, err := resolver.Resolve(ctx, named.String())
	if err != nil {
		return Image{}, registryError(ctx, image, err)
	}
	pinned, err := reference.WithDigest(reference.TrimNamed(named), top.Digest)
	if err != nil {
		return Image{}, fmt.Errorf("name image %q by its digest: %w", image, err)
	}
	fetcher, err := resolver.Fetcher(ctx, pinned.String())
	if err != nil {
		return Image{}, registryError(ctx, image, err)
	}
	config, err := imageConfig(ctx, fetcher, top)
	if err != nil {
		return Image{}, registryError(ctx, image, err)
	}
	return Image{Ref: pinned.String(), User: UserKind(config.User), Port: ExposedPort(config)}, nil
}

// askRegistry is how long a registry may take to describe an image.
const askRegistry = 15 * time.Second

var errSlow = errors.New("it does not answer")

// quiet returns a logger that drops everything: the resolver logs what it also
// returns as errors.
func quiet() *log.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}

// registryError tells an image that is not there from a registry that is not.
func registryError(ctx context.Context, image string, err error) error {
	cause := context.Cause(ctx)
	if cause != nil && !errors.Is(cause, errSlow) {
		return cause
	}
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("image %q: %w", image, ErrNoImage)
	}
	status := remoteerrors.ErrUnexpectedStatus{}
	if errors.As(err, &status) && status.StatusCode == http.StatusForbidden {
		return fmt.Errorf("image %q: %w: %s", image, ErrDenied, strings.Join(strings.Fields(err.Error()), " "))
	}
	if cause != nil {
		err = cause
	}
	if request := (*url.Error)(nil); errors.As(err, &request) {
		err = request.Err
	}
	return fmt.Errorf("image %q: %w: %w", image, ErrUnreachable, err)
}

// registryToken returns a password for the registry with the rights of the
// namespace.
func (c *Client) registryToken(ctx context.Context, namespace, registry string) (string, error) {
	seconds := int64(600)
	out, err := c.core.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, "default", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{registry}, ExpirationSeconds: &seconds},
	}, metav1.CreateOptions{})
	if apierrors.IsNotFound(err) {
		return "", fmt.Errorf("namespace %q does not exist: make it with: emerald kubectl create namespace %s", namespace, namespace)
	}
	if err != nil {
		return "", fmt.Errorf("get a token for %s: %w", registry, explain(err))
	}
	return out.Status.Token, nil
}

// maxManifest is the largest manifest or configuration that is read: what
// registries accept.
const maxManifest = 4 << 20

// imageConfig returns the configuration of an image, or of the first Linux image
// of an index. Platforms hardly ever differ in their user and ports.
func imageConfig(ctx context.Context, f remotes.Fetcher, d ocispecs.Descriptor) (ocispecs.ImageConfig, error) {
	var doc struct {
		Config    *ocispecs.Descriptor  `json:"config"`
		Manifests []ocispecs.Descriptor `json:"manifests"`
	}
	if err := fetchJSON(ctx, f, d, &doc); err != nil {
		return ocispecs.ImageConfig{}, err
	}
	if doc.Config == nil {
		i := slices.IndexFunc(doc.Manifests, func(m ocispecs.Descriptor) bool { return m.Platform == nil || m.Platform.OS == "linux" })
		if i < 0 {
			return ocispecs.ImageConfig{}, errors.New("it has no image for Linux")
		}
		if err := fetchJSON(ctx, f, doc.Manifests[i], &doc); err != nil {
			return ocispecs.ImageConfig{}, err
		}
		if doc.Config == nil {
			return ocispecs.ImageConfig{}, errors.New("its manifest names no configuration")
		}
	}
	var image ocispecs.Image
	if err := fetchJSON(ctx, f, *doc.Config, &image); err != nil {
		return ocispecs.ImageConfig{}, err
	}
	return image.Config, nil
}

func fetchJSON(ctx context.Context, f remotes.Fetcher, d ocispecs.Descriptor, into any) error {
	r, err := f.Fetch(ctx, d)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", d.Digest, err)
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, maxManifest))
	if err != nil {
		return fmt.Errorf("fetch %s: %w", d.Digest, err)
	}
	if d.Digest.Algorithm().FromBytes(raw) != d.Digest {
		return fmt.Errorf("fetch %s: the content does not match", d.Digest)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("decode %s: %w", d.Digest, err)
	}
	return nil
}

// UserKind tells what an image's USER is: "", "name", "uid", each with an
// optional ":group" (OCI image-spec config.md).
func UserKind(user string) v1alpha1.ImageUserKind {
	user, _, _ = strings.Cut(user, ":")
	if user == "" || user == "root" {
		return v1alpha1.UserRoot
	}
	uid, err := strconv.ParseUint(user, 10, 32)
	switch {
	case err != nil:
		return v1alpha1.UserNamed
	case uid == 0:
		return v1alpha1.UserRoot
	}
	return v1alpha1.UserNumeric
}

// ExposedPort returns the TCP port that an image exposes when it is just one,
// else 0.
func ExposedPort(config ocispecs.ImageConfig) int32 {
	found := int32(0)
	for exposed := range config.ExposedPorts {
		number, protocol, _ := strings.Cut(exposed, "/")
		port, err := strconv.ParseUint(number, 10, 16)
		if err != nil || port == 0 || (protocol != "" && protocol != "tcp") {
			continue
		}
		if found != 0 {
			return 0
		}
		found = int32(port)
	}
	return found
}
