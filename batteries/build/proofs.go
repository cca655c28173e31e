package build

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/emerald-platform/emerald/batteries/build/client"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/poll"
	"github.com/emerald-platform/emerald/kit/reach"
)

var proofs = []battery.Proof{{
	Feature: "CI/CD",
	Claim:   "A folder with a Dockerfile becomes an image that the registry has under its digest.",
	Check:   proveBuild,
}, {
	Feature: "CI/CD",
	Claim:   "A broken Dockerfile is refused with the line that is wrong, and nothing is pushed.",
	Check:   proveRefusal,
}, {
	Feature: "CI/CD",
	Claim:   "Without a token for the builder nobody builds.",
	Check:   proveGate,
}}

// A Dockerfile that needs no base image proves the builder alone.
const (
	soundDockerfile  = "FROM scratch\nCOPY greeting /greeting\nLABEL proof=build\nUSER 65532:65532\n"
	brokenDockerfile = "FROM scratch\nCOPY greeting /greeting\nCOPY no-such-file /\n"
	brokenLine       = 3
)

// proveBuild builds and finds the result in the registry as somebody else.
func proveBuild(ctx context.Context, s battery.Site) error {
	return withProject(ctx, s, soundDockerfile, func(ctx context.Context, p *project) (err error) {
		result, err := client.Build(ctx, s.Kube, p.request())
		if err != nil {
			return fmt.Errorf("build a folder: %w", err)
		}
		defer func() { err = errors.Join(err, p.remove(context.WithoutCancel(ctx), result.Digest)) }()
		if result.Config.User != "65532:65532" {
			return fmt.Errorf("the image runs as %q, its Dockerfile says 65532:65532", result.Config.User)
		}
		status, err := p.manifest(ctx, http.MethodHead, result.Digest, "default")
		if err != nil {
			return err
		}
		if status != http.StatusOK {
			return fmt.Errorf("the registry answers %d for the image %s that was just built", status, result.Image)
		}
		return nil
	})
}

// proveRefusal builds a folder with a mistake in its Dockerfile.
func proveRefusal(ctx context.Context, s battery.Site) error {
	return withProject(ctx, s, brokenDockerfile, func(ctx context.Context, p *project) error {
		_, err := client.Build(ctx, s.Kube, p.request())
		var step *client.StepError
		switch {
		case err == nil:
			return errors.New("a Dockerfile that copies a file that does not exist was built")
		case !errors.As(err, &step):
			return fmt.Errorf("build a broken Dockerfile: %w", err)
		case step.File != "Dockerfile" || step.Line != brokenLine:
			return fmt.Errorf("the error is at line %d of %q, the mistake at line %d of the Dockerfile: %w", step.Line, step.File, brokenLine, err)
		case !strings.Contains(err.Error(), "no-such-file"):
			return fmt.Errorf("the error does not name the missing file: %w", err)
		}
		status, err := p.manifest(ctx, http.MethodHead, "proof", "default")
		if err != nil {
			return err
		}
		if status != http.StatusNotFound {
			return fmt.Errorf("the registry answers %d for the image of a build that failed", status)
		}
		return nil
	})
}

// proveGate goes the way of a build step, which reaches the builder's port but
// has no token for it.
func proveGate(ctx context.Context, s battery.Site) error {
	err := client.Knock(ctx, s.Kube, "")
	if !errors.Is(err, client.ErrNotAllowed) {
		return fmt.Errorf("without a token the builder answers: %v", err)
	}
	api, err := kubernetes.NewForConfig(s.Kube)
	if err != nil {
		return fmt.Errorf("reach the cluster: %w", err)
	}
	// A token of the right account for somebody else is no token either.
	token, err := tokenOf(ctx, api, battery.NamespaceOf(name), client.Account, "somebody-else")
	if err != nil {
		return err
	}
	if err := client.Knock(ctx, s.Kube, token); !errors.Is(err, client.ErrNotAllowed) {
		return fmt.Errorf("with a token made for somebody else the builder answers: %v", err)
	}
	return nil
}

// project is a folder and a namespace that exist for one proof.
type project struct {
	site      battery.Site
	api       kubernetes.Interface
	http      *http.Client
	dir       string
	namespace string
}

const repository = "proof"

func withProject(ctx context.Context, s battery.Site, dockerfile string, f func(context.Context, *project) error) (err error) {
	api, err := kubernetes.NewForConfig(s.Kube)
	if err != nil {
		return fmt.Errorf("reach the cluster: %w", err)
	}
	route, err := reach.New(ctx, s.Kube)
	if err != nil {
		return err
	}
	p := &project{site: s, api: api, http: &http.Client{Transport: route.Transport(), Timeout: time.Minute}}
	defer p.http.CloseIdleConnections()
	if p.dir, err = os.MkdirTemp("", "emerald-proof-"); err != nil {
		return fmt.Errorf("make a folder to build: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(p.dir)) }()
	for name, text := range map[string]string{"Dockerfile": dockerfile, "greeting": "hello from a proof\n"} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("make a folder to build: %w", err)
		}
	}
	ns, err := api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "emerald-proof-build-"}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("make a namespace to push to: %w", err)
	}
	p.namespace = ns.Name
	defer func() {
		// Also when ctx ended: a proof leaves nothing behind.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, api.CoreV1().Namespaces().Delete(clean, p.namespace, metav1.DeleteOptions{}))
	}()
	// The account whose rights a push has appears a moment after its namespace.
	if err := poll.Until(ctx, 50*time.Millisecond, time.Minute, func(ctx context.Context) (bool, error) {
		_, err := api.CoreV1().ServiceAccounts(p.namespace).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, nil
	}); err != nil {
		return fmt.Errorf("wait for the service account of namespace %q: %w", p.namespace, err)
	}
	return f(ctx, p)
}

func (p *project) request() client.Request {
	return client.Request{Dir: p.dir, Image: p.namespace + "/" + repository + ":proof", Namespace: p.namespace}
}

// manifest asks the registry about the image, as a service account, and returns
// the status of its answer.
func (p *project) manifest(ctx context.Context, method, reference, account string) (int, error) {
	namespace := p.namespace
	if account == registryAdmin {
		namespace = battery.NamespaceOf("registry")
	}
	registry := client.Registry(p.site.Domain)
	token, err := tokenOf(ctx, p.api, namespace, account, registry)
	if err != nil {
		return 0, err
	}
	url := "https://" + registry + "/v2/" + p.namespace + "/" + repository + "/manifests/" + reference
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, fmt.Errorf("ask the registry: %w", err)
	}
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json")
	req.SetBasicAuth("token", token)
	resp, err := p.http.Do(req)
	if err != nil {
		return 0, fmt.Errorf("ask the registry: %w", err)
	}
	return resp.StatusCode, resp.Body.Close()
}

// registryAdmin is the service account of the registry's namespace that may
// remove images.
const registryAdmin = "registry-admin"

// remove takes the image out of the registry.
func (p *project) remove(ctx context.Context, digest string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	status, err := p.manifest(ctx, http.MethodDelete, digest, registryAdmin)
	if err != nil {
		return err
	}
	if status != http.StatusAccepted && status != http.StatusNotFound {
		return fmt.Errorf("remove the proof's image: the registry answers %d", status)
	}
	return nil
}

func tokenOf(ctx context.Context, api kubernetes.Interface, namespace, account, audience string) (string, error) {
	t, err := api.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("get a token of service account %s/%s: %w", namespace, account, err)
	}
	return t.Status.Token, nil
}
