package install_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/battery/host"
	"github.com/emerald-platform/emerald/kit/kube"
)

// acting returns the list with a controller in things that says what it could
// do each time it is run.
func acting(did chan<- error) []battery.Battery {
	all := first()
	for i := range all {
		if all[i].Name != "things" {
			continue
		}
		objects := all[i].Manifests
		all[i].Manifests = func(s battery.Site) ([]kube.Object, error) {
			objs, err := objects(s)
			meta := metav1.ObjectMeta{Name: "things"}
			return append(objs,
				&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
					{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"words"}, Verbs: []string{"get"}},
				}},
				&rbacv1.RoleBinding{
					ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "things"},
					Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: s.Namespace, Name: "things"}},
				}), err
		}
		all[i].Run = func(ctx context.Context, s battery.Site) error {
			did <- act(ctx, s)
			s.Ready()
			<-ctx.Done()
			return nil
		}
	}
	return all
}

// act does what things may, and tries what it may not.
func act(ctx context.Context, s battery.Site) error {
	client, err := kubernetes.NewForConfig(s.Kube)
	if err != nil {
		return err
	}
	if _, err := client.CoreV1().ConfigMaps("emerald-things").Get(ctx, "words", metav1.GetOptions{}); err != nil {
		return fmt.Errorf("what things may do: %w", err)
	}
	// The process itself may read that; the battery in it may not.
	_, err = client.CoordinationV1().Leases(battery.SystemNamespace).Get(ctx, battery.ControllersWorkload, metav1.GetOptions{})
	if !apierrors.IsForbidden(err) {
		return fmt.Errorf("what things may not do: %v, want forbidden", err)
	}
	return nil
}

// controllers runs the process of the shared controllers twice, as two pods,
// with the rights their service account has.
func controllers(t *testing.T, w *world) {
	w.machine.real(true)
	defer w.machine.real(false)
	did := make(chan error, 10)
	all := acting(did)
	in := w.install(t, all)
	in.until(t, allReady()) // by what the played machine reported before
	eventually(t, "a pod for the process", func() error {
		_, err := w.controllersPod(t)
		return err
	})
	pod, err := w.controllersPod(t)
	if err != nil {
		t.Fatal(err)
	}

	a := w.host(t, all, pod)
	if err := receive(t, did); err != nil {
		t.Error(err)
	}
	in.until(t, allReady())
	a.answers(t, http.StatusOK)

	b := w.host(t, all, "another-pod")
	b.answers(t, http.StatusOK) // one that stands by is ready to take over
	select {
	case <-did:
		t.Error("two pods act at the same time")
	case <-time.After(3 * time.Second): // longer than a retry of the election
	}
	began := time.Now()
	a.stop()
	if err := receive(t, did); err != nil {
		t.Error(err)
	}
	t.Logf("the other pod took over after %v", time.Since(began))
	b.stop()

	// The process acts for the batteries in it, and for no other.
	as := w.as(t, battery.ControllersWorkload)
	as.Impersonate.UserName = "system:serviceaccount:emerald-base:base"
	client, err := kubernetes.NewForConfig(as)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Pods("emerald-base").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("impersonate base: %v, want forbidden", err)
	}
	as.Impersonate.UserName = ""
	if client, err = kubernetes.NewForConfig(as); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Secrets(battery.SystemNamespace).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("read secrets: %v, want forbidden", err)
	}
}

func receive(t *testing.T, from <-chan error) error {
	t.Helper()
	select {
	case err := <-from:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the controller does not act")
		return nil
	}
}

// controllersPod returns the name of a pod of the shared controllers with the
// settings in force.
func (w *world) controllersPod(t *testing.T) (string, error) {
	t.Helper()
	d, err := w.client.AppsV1().Deployments(battery.SystemNamespace).Get(t.Context(), battery.ControllersWorkload, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	pods, err := w.client.CoreV1().Pods(battery.SystemNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: battery.LabelBattery + "=" + battery.SystemBattery})
	if err != nil {
		return "", err
	}
	for _, p := range pods.Items {
		fresh := p.Annotations[battery.AnnotationSite] == d.Spec.Template.Annotations[battery.AnnotationSite]
		if fresh && p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning {
			return p.Name, nil
		}
	}
	return "", fmt.Errorf("none of %d pods runs", len(pods.Items))
}

// as returns a client configuration with the token of a service account of
// emerald-system.
func (w *world) as(t *testing.T, account string) *rest.Config {
	t.Helper()
	token, err := w.client.CoreV1().ServiceAccounts(battery.SystemNamespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := rest.AnonymousClientConfig(w.cfg)
	cfg.BearerToken = token.Status.Token
	return cfg
}

// hosted is a process of the shared controllers.
type hosted struct {
	url  string
	stop func()
}

// host starts one, as a pod of this name.
func (w *world) host(t *testing.T, all []battery.Battery, pod string) *hosted {
	t.Helper()
	site, err := w.client.CoreV1().ConfigMaps(battery.SystemNamespace).Get(t.Context(), "site", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "site.json")
	if err := os.WriteFile(file, []byte(site.Data["site.json"]), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- host.Run(ctx, host.Options{
			Batteries: all, What: host.Controllers, Pod: pod, SiteFile: file, Kube: w.as(t, battery.ControllersWorkload), Listen: l,
			Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		})
	}()
	stopped := false
	h := &hosted{url: "http://" + l.Addr().String() + "/readyz"}
	h.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the process of pod %s ended with %v, want nil", pod, err)
		}
	}
	t.Cleanup(h.stop)
	return h
}

// answers waits until the process is as ready as that.
func (h *hosted) answers(t *testing.T, want int) {
	t.Helper()
	eventually(t, "the process is ready", func() error {
		resp, err := http.Get(h.url)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			return fmt.Errorf("it answers %d, want %d", resp.StatusCode, want)
		}
		return nil
	})
}
