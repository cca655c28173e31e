package kubeconfig

import (
	"net/http"
	"os"
	"path/filepath"
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
