package controlplane

import (
	"bytes"
	"context"
	"encoding/base64"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/emerald-platform/emerald/platform/isolated"
	"github.com/emerald-platform/emerald/platform/pki"
)

func TestMain(m *testing.M) { isolated.Main(m) }

// TestControlPlane boots the whole control plane once, because upstream's
// global state allows no second, and looks at it from outside.
func TestControlPlane(t *testing.T) {
	isolated.Require(t)
	giveAddress(t, "192.0.2.10/32")
	o := testOptions(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ready, ended := make(chan struct{}), make(chan error, 1)
	built := make(chan struct{})
	o.Ready = func() { close(ready) }
	o.ControllersBuilt = func() { close(built) }
	go func() { ended <- Run(ctx, o) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("the control plane ended: %v", err)
	case <-ctx.Done():
		t.Fatal("the control plane was not ready in time")
	}
	select {
	case <-built:
	case <-ctx.Done():
		t.Fatal("the controllers were not built in time")
	}
	owner := testClient(t, o, pki.Admin)

	t.Run("the owner may do everything", func(t *testing.T) {
		if _, err := owner.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("the nameless may ask for health only", func(t *testing.T) { nameless(t, o) })
	t.Run("secrets are encrypted in etcd", func(t *testing.T) { encrypted(ctx, t, o, owner) })
	t.Run("a component may not do what another may", func(t *testing.T) {
		_, err := testClient(t, o, pki.KubeProxy).CoreV1().Secrets("default").List(ctx, metav1.ListOptions{})
		if !apierrors.IsForbidden(err) {
			t.Errorf("kube-proxy lists secrets: %v, want forbidden", err)
		}
	})
	t.Run("namespaces enforce baseline by default", func(t *testing.T) {
		_, err := owner.CoreV1().Pods("default").Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "escape"},
			Spec: corev1.PodSpec{HostNetwork: true, AutomountServiceAccountToken: new(bool),
				Containers: []corev1.Container{{Name: "c", Image: "x"}}},
		}, metav1.CreateOptions{})
		if !apierrors.IsForbidden(err) {
			t.Errorf("a pod in the host's network: %v, want forbidden", err)
		}
	})
	t.Run("writes are audited without their bodies", func(t *testing.T) {
		raw, err := os.ReadFile(filepath.Join(o.logDir(), "audit.log"))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte(plaintext)) || bytes.Contains(raw, []byte(base64.StdEncoding.EncodeToString([]byte(plaintext)))) {
			t.Error("the audit log holds a secret's value")
		}
	})

	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the control plane ended with %v, want nil", err)
	}
}

// giveAddress puts an address on the namespace's loopback.
func giveAddress(t *testing.T, cidr string) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(lo, addr); err != nil {
		t.Fatal(err)
	}
}

const plaintext = "correct horse battery staple"

func testOptions(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	address := net.IPv4(192, 0, 2, 10).To4()
	keys, err := pki.Open(filepath.Join(dir, "pki"), pki.Identity{
		Node: "test", Addresses: []net.IP{address},
		ServiceAddress: net.IPv4(10, 43, 0, 1).To4(), ClusterDomain: "cluster.local",
	})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		DataDir: dir, Node: "test", Address: address, PodCIDR: "10.42.0.0/16", ServiceCIDR: "10.43.0.0/16",
		ClusterDomain: "cluster.local", PKI: keys, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if err := Prepare(o); err != nil {
		t.Fatal(err)
	}
	return o
}

func testClient(t *testing.T, o Options, name string) *kubernetes.Clientset {
	t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig(name))
	if err != nil {
		t.Fatal(err)
	}
	return kubernetes.NewForConfigOrDie(cfg)
}

func nameless(t *testing.T, o Options) {
	client, err := rest.HTTPClientFor(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: o.PKI.Cert(pki.ClusterCA)}})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/readyz": http.StatusOK, "/livez": http.StatusOK,
		"/version": http.StatusUnauthorized, "/api": http.StatusUnauthorized, "/metrics": http.StatusUnauthorized,
	} {
		resp, err := client.Get(o.apiURL() + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET %s: %d, want %d", path, resp.StatusCode, want)
		}
	}
}

func encrypted(ctx context.Context, t *testing.T, o Options, owner kubernetes.Interface) {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"k": plaintext}}
	if _, err := owner.CoreV1().Secrets("default").Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	tls, err := (transport.TLSInfo{
		CertFile: o.PKI.Cert(pki.APIServerEtcd), KeyFile: o.PKI.Key(pki.APIServerEtcd), TrustedCAFile: o.PKI.Cert(pki.EtcdCA),
	}).ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	etcd, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://127.0.0.1:2379"}, TLS: tls, DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer etcd.Close()
	got, err := etcd.Get(ctx, "/registry/secrets/default/s")
	if err != nil || len(got.Kvs) != 1 {
		t.Fatalf("read the secret from etcd: %v, %d values", err, len(got.Kvs))
	}
	value := string(got.Kvs[0].Value)
	if strings.Contains(value, plaintext) || !strings.HasPrefix(value, "k8s:enc:secretbox:v1:") {
		t.Errorf("etcd holds the secret as %.40q…, want it encrypted", value)
	}
}
