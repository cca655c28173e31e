package kubeconfig

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]*rest.Config{
		"a pod that acts as another": {
			Host: "https://10.43.0.1:443", BearerToken: "secret", BearerTokenFile: token,
			TLSClientConfig: rest.TLSClientConfig{CAData: []byte("ca"), ServerName: "kubernetes"},
			Impersonate: rest.ImpersonationConfig{
				UserName: "system:serviceaccount:emerald-certs:certs", Groups: []string{"a"}, Extra: map[string][]string{"k": {"v"}},
			},
		},
		"a machine with a certificate": {
			Host:            "https://127.0.0.1:6443",
			TLSClientConfig: rest.TLSClientConfig{CertData: []byte("cert"), KeyData: []byte("key"), CAFile: token},
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "kubeconfig")
			if err := Write(path, want); err != nil {
				t.Fatal(err)
			}
			got, err := clientcmd.BuildConfigFromFlags("", path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want.String(), got.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want.TLSClientConfig.CertData, got.CertData); diff != "" {
				t.Errorf("certificate (-want +got):\n%s", diff)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if mode := info.Mode().Perm(); mode != 0o600 {
				t.Errorf("mode %o", mode)
			}
		})
	}
}

// counter counts the requests that pass it.
type counter struct {
	passed *atomic.Int32
	next   http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (c counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.passed.Add(1)
	return c.next.RoundTrip(r)
}

// What is wrapped around the transport is there for who reads the file, together
// with the token.
func TestWriteWrapped(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for range 2 { // a second one does not take the first one's place
		var passed atomic.Int32
		cfg := &rest.Config{Host: server.URL, BearerToken: "secret", TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
		cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return counter{&passed, next} })
		path := filepath.Join(t.TempDir(), "kubeconfig")
		if err := Write(path, cfg); err != nil {
			t.Fatal(err)
		}
		got, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil {
			t.Fatal(err)
		}
		client, err := rest.HTTPClientFor(got)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || passed.Load() != 1 {
			t.Errorf("%s, %d requests passed", resp.Status, passed.Load())
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	cfg := &rest.Config{Host: "https://127.0.0.1", Transport: http.DefaultTransport}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := Write(path, cfg); err == nil {
		t.Error("a connection made by code was written to a file")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file exists all the same")
	}
}
