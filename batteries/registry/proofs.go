package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/emerald-platform/emerald/batteries/registry/client"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/poll"
)

var proofs = []battery.Proof{
	{
		Feature: "image registry",
		Claim:   "An image comes back byte for byte by its public name with what is attached to it, and nobody without the right gets it.",
		Check:   func(ctx context.Context, s battery.Site) error { return prove(ctx, s, (*proof).pushAndPull) },
	},
	{
		Feature: "image registry",
		Claim:   "A pod runs an image of its own namespace without any password of its own, and a pod of another namespace is refused it.",
		Check:   func(ctx context.Context, s battery.Site) error { return prove(ctx, s, (*proof).runInPod) },
	},
}

// proof is the stage of one check: two namespaces that are gone afterwards, and
// an image in the first.
type proof struct {
	kube  kubernetes.Interface
	site  battery.Site
	home  string // namespace the image belongs to
	other string // another one

	asHome, asOther, anonymous *client.Client

	repo  string
	image *tinyImage
	desc  v1.Descriptor // of the pushed manifest
}

// prove sets the stage, runs the check and clears up.
func prove(ctx context.Context, s battery.Site, check func(*proof, context.Context) error) (err error) {
	kube, err := kubernetes.NewForConfig(s.Kube)
	if err != nil {
		return fmt.Errorf("make a client of the cluster: %w", err)
	}
	p := &proof{kube: kube, site: s}
	defer func() {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		err = errors.Join(err, p.clear(cleanup))
	}()
	if err := p.enter(ctx); err != nil {
		return err
	}
	return check(p, ctx)
}

func (p *proof) enter(ctx context.Context) error {
	for _, ns := range []*string{&p.home, &p.other} {
		made, err := p.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			GenerateName: "verify-registry-", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
		}}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("make a namespace: %w", err)
		}
		*ns = made.Name
	}
	server := Audience(p.site.Domain)
	var err error
	if p.anonymous, err = client.New(ctx, p.site.Kube, client.Credentials{Server: server}); err != nil {
		return err
	}
	for ns, c := range map[string]**client.Client{p.home: &p.asHome, p.other: &p.asOther} {
		creds, err := p.login(ctx, ns, server)
		if err != nil {
			return err
		}
		*c = p.anonymous.With(creds)
	}
	p.repo = p.home + "/proof"
	return p.push(ctx)
}

// login gets a password with the rights of a namespace, whose service account is
// made a moment after itself.
func (p *proof) login(ctx context.Context, ns, audience string) (client.Credentials, error) {
	var creds client.Credentials
	err := poll.Until(ctx, 100*time.Millisecond, 30*time.Second, func(ctx context.Context) (bool, error) {
		_, err := p.kube.CoreV1().ServiceAccounts(ns).Get(ctx, "default", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		creds, err = client.Login(ctx, p.site.Kube, audience, client.Account{Namespace: ns, Name: "default"}, 0)
		return err == nil, err
	})
	if err != nil {
		return creds, fmt.Errorf("log in with the rights of namespace %q: %w", ns, err)
	}
	return creds, nil
}

// push makes an image that nobody has ever seen, and pushes it.
func (p *proof) push(ctx context.Context) error {
	nodes, err := p.kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil || len(nodes.Items) == 0 {
		return fmt.Errorf("ask which machines there are: %w", err)
	}
	p.image, err = newTinyImage(nodes.Items[0].Status.NodeInfo.Architecture, rand.Text())
	if err != nil {
		return err
	}
	for _, blob := range [][]byte{p.image.config, p.image.layer} {
		if _, err := p.asHome.PushBlob(ctx, p.repo, blob); err != nil {
			return fmt.Errorf("push a blob to %s: %w", p.repo, err)
		}
	}
	if p.desc, err = p.asHome.PushImage(ctx, p.repo, "1", p.image.manifest); err != nil {
		return fmt.Errorf("push an image to %s: %w", p.repo, err)
	}
	return nil
}

// clear removes the image and the namespaces.
func (p *proof) clear(ctx context.Context) error {
	var errs []error
	if p.desc.Digest != "" {
		admin, err := client.Login(ctx, p.site.Kube, Audience(p.site.Domain), client.Admin, 0)
		if err == nil {
			err = p.erase(ctx, p.asHome.With(admin))
		}
		errs = append(errs, err)
	}
	for _, ns := range []string{p.home, p.other} {
		if ns == "" {
			continue
		}
		if err := p.kube.CoreV1().Namespaces().Delete(ctx, ns, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove namespace %q: %w", ns, err))
		}
	}
	if p.anonymous != nil {
		p.anonymous.Close()
	}
	return errors.Join(errs...)
}

// erase takes everything out of the proof's repository.
func (p *proof) erase(ctx context.Context, c *client.Client) error {
	var errs []error
	attached, err := c.Referrers(ctx, p.repo, p.desc.Digest, "")
	errs = append(errs, err)
	for _, d := range append(attached, p.desc) {
		errs = append(errs, c.Delete(ctx, p.repo, d.Digest.String()))
	}
	for _, blob := range [][]byte{p.image.config, p.image.layer, v1.DescriptorEmptyJSON.Data} {
		_, err := c.Do(ctx, http.MethodDelete, "/v2/"+p.repo+"/blobs/"+digest.FromBytes(blob).String(), nil, nil)
		if !errors.Is(err, client.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// pushAndPull proves what people do with a registry.
func (p *proof) pushAndPull(ctx context.Context) error {
	pulled, err := p.asHome.Pull(ctx, p.repo, "manifests", "1")
	if err != nil {
		return fmt.Errorf("pull %s:1: %w", p.repo, err)
	}
	if digest.FromBytes(pulled) != p.desc.Digest {
		return fmt.Errorf("pull %s:1: it came back as %s and was pushed as %s", p.repo, digest.FromBytes(pulled), p.desc.Digest)
	}
	for _, blob := range [][]byte{p.image.config, p.image.layer} {
		got, err := p.asHome.Pull(ctx, p.repo, "blobs", digest.FromBytes(blob).String())
		if err != nil {
			return fmt.Errorf("pull a blob of %s: %w", p.repo, err)
		}
		if !bytes.Equal(got, blob) {
			return fmt.Errorf("pull a blob of %s: %d bytes came back that are not the %d that were pushed", p.repo, len(got), len(blob))
		}
	}
	if err := p.attach(ctx); err != nil {
		return err
	}
	return p.refusals(ctx)
}

// attach proves that what refers to an image is found.
func (p *proof) attach(ctx context.Context) error {
	const artifact = "application/vnd.emerald.proof"
	if _, err := p.asHome.PushBlob(ctx, p.repo, v1.DescriptorEmptyJSON.Data); err != nil {
		return fmt.Errorf("push a blob to %s: %w", p.repo, err)
	}
	attached, err := p.asHome.PushImage(ctx, p.repo, "", v1.Manifest{
		ArtifactType: artifact, Config: v1.DescriptorEmptyJSON, Layers: []v1.Descriptor{v1.DescriptorEmptyJSON}, Subject: &p.desc,
	})
	if err != nil {
		return fmt.Errorf("attach something to %s: %w", p.repo, err)
	}
	for kind, want := range map[string]int{artifact: 1, "application/vnd.emerald.other": 0} {
		found, err := p.asHome.Referrers(ctx, p.repo, p.desc.Digest, kind)
		if err != nil {
			return fmt.Errorf("list what is attached to %s: %w", p.repo, err)
		}
		if len(found) != want || want == 1 && found[0].Digest != attached.Digest {
			return fmt.Errorf("list what is attached to %s: %d of type %s were found, there is %d", p.repo, len(found), kind, want)
		}
	}
	return nil
}

// refusals proves that nobody without the right gets in.
func (p *proof) refusals(ctx context.Context) error {
	server := Audience(p.site.Domain)
	// The API server's own tokens must not open the registry: whoever the
	// registry is asked by could use them there.
	elsewhere, err := p.login(ctx, p.home, "https://kubernetes.default.svc."+p.site.ClusterDomain)
	if err != nil {
		return err
	}
	elsewhere.Server = server
	forged := client.Credentials{Server: server, Username: "serviceaccount", Password: "forged"}
	for _, try := range []struct {
		who    string
		as     *client.Client
		method string
		status int
	}{
		{"nobody", p.anonymous, http.MethodGet, http.StatusUnauthorized},
		{"somebody with a forged token", p.anonymous.With(forged), http.MethodGet, http.StatusUnauthorized},
		{"somebody with a token for the API server", p.anonymous.With(elsewhere), http.MethodGet, http.StatusUnauthorized},
		{"another namespace", p.asOther, http.MethodGet, http.StatusForbidden},
		{"another namespace", p.asOther, http.MethodPut, http.StatusForbidden},
		{"a namespace without the right to delete", p.asHome, http.MethodDelete, http.StatusForbidden},
	} {
		_, err := try.as.Do(ctx, try.method, "/v2/"+p.repo+"/manifests/1", nil, nil)
		var refused *client.Error
		if !errors.As(err, &refused) || refused.Status != try.status {
			return fmt.Errorf("refuse %s to %s %s: status %d was expected: %w", try.who, try.method, p.repo, try.status, orNone(err))
		}
	}
	return nil
}

var errNone = errors.New("it was allowed")

func orNone(err error) error {
	if err == nil {
		return errNone
	}
	return err
}

// runInPod proves that machines pull with the rights of the pod.
func (p *proof) runInPod(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return p.pod(ctx, p.home, func(pod *corev1.Pod) (bool, error) {
			if reason, message := waiting(pod); reason == "ErrImagePull" || reason == "ImagePullBackOff" {
				return false, fmt.Errorf("the image cannot be pulled: %s", message)
			}
			return pod.Status.Phase == corev1.PodSucceeded, nil
		})
	})
	g.Go(func() error {
		return p.pod(ctx, p.other, func(pod *corev1.Pod) (bool, error) {
			if len(pod.Status.ContainerStatuses) > 0 && pod.Status.ContainerStatuses[0].State.Terminated != nil {
				return false, errors.New("it ran an image of another namespace")
			}
			reason, _ := waiting(pod)
			return reason == "ErrImagePull" || reason == "ImagePullBackOff", nil
		})
	})
	return g.Wait()
}

// waiting returns why the container of a pod does not run yet.
func waiting(pod *corev1.Pod) (reason, message string) {
	if len(pod.Status.ContainerStatuses) == 0 || pod.Status.ContainerStatuses[0].State.Waiting == nil {
		return "", ""
	}
	w := pod.Status.ContainerStatuses[0].State.Waiting
	return w.Reason, w.Message
}

// pod runs the image in a namespace until done says so.
func (p *proof) pod(ctx context.Context, ns string, done func(*corev1.Pod) (bool, error)) error {
	yes, no := true, false
	user := int64(battery.UserID)
	pod, err := p.kube.CoreV1().Pods(ns).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "proof"},
		Spec: corev1.PodSpec{
			RestartPolicy:                corev1.RestartPolicyNever,
			AutomountServiceAccountToken: &no,
			NodeSelector:                 map[string]string{corev1.LabelArchStable: p.image.architecture},
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: &yes, RunAsUser: &user, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "proof", Image: Audience(p.site.Domain) + "/" + p.repo + "@" + p.desc.Digest.String(),
				// A machine that has the image must still ask whether this pod may.
				ImagePullPolicy: corev1.PullAlways,
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("make a pod in %q: %w", ns, err)
	}
	var last string
	err = poll.Until(ctx, 200*time.Millisecond, 90*time.Second, func(ctx context.Context) (bool, error) {
		now, err := p.kube.CoreV1().Pods(ns).Get(ctx, pod.Name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		reason, message := waiting(now)
		last = fmt.Sprintf("%s %s %s", now.Status.Phase, reason, message)
		return done(now)
	})
	if err != nil {
		return fmt.Errorf("run the image in a pod of %q: %w: it is %s", ns, err, last)
	}
	return nil
}
