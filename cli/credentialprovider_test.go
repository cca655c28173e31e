package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	credentialprovider "k8s.io/kubelet/pkg/apis/credentialprovider/v1"
)

const kubeletAsks = `{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1",` +
	`"image":"registry.emerald.localhost/demo/a:1","serviceAccountToken":"secret"}`

func TestCredentialProvider(t *testing.T) {
	var out bytes.Buffer
	if err := provideCredentials(strings.NewReader(kubeletAsks), &out); err != nil {
		t.Fatal(err)
	}
	var got credentialprovider.CredentialProviderResponse
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := credentialprovider.CredentialProviderResponse{
		TypeMeta:     metav1.TypeMeta{APIVersion: "credentialprovider.kubelet.k8s.io/v1", Kind: "CredentialProviderResponse"},
		CacheKeyType: credentialprovider.RegistryPluginCacheKeyType, CacheDuration: &metav1.Duration{Duration: 5 * time.Minute},
		Auth: map[string]credentialprovider.AuthConfig{"registry.emerald.localhost": {Username: "serviceaccount", Password: "secret"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

func TestCredentialProviderRefuses(t *testing.T) {
	for name, request := range map[string]string{
		"nothing":         "",
		"no JSON":         `{"serviceAccountToken":"secret"`,
		"another version": strings.Replace(kubeletAsks, "/v1", "/v1alpha1", 1),
		"another kind":    strings.Replace(kubeletAsks, "Request", "Response", 1),
		"no token":        strings.Replace(kubeletAsks, "secret", "", 1),
		"no image":        strings.Replace(kubeletAsks, "registry.emerald.localhost/demo/a:1", "", 1),
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := provideCredentials(strings.NewReader(request), &out)
			if err == nil || out.Len() > 0 {
				t.Errorf("answered %q, %v", out.String(), err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells the token: %v", err)
			}
		})
	}
}

func FuzzCredentialProvider(f *testing.F) {
	f.Add(kubeletAsks)
	f.Fuzz(func(t *testing.T, request string) {
		var out bytes.Buffer
		if err := provideCredentials(strings.NewReader(request), &out); (err == nil) != (out.Len() > 0) {
			t.Errorf("%q: %v with %d bytes of an answer", request, err, out.Len())
		}
	})
}
