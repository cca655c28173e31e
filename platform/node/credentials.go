package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1 "k8s.io/kubelet/config/v1"

	"github.com/emerald-platform/emerald/kit/durable"
)

// providerName is the program that the kubelet asks for credentials of the
// platform's registry: this program under another name.
const providerName = "emerald-credential-provider"

// credentialProvider is where the kubelet finds it.
type credentialProvider struct {
	config   string // file
	programs string // directory
}

// writeCredentialProvider makes kubelets pull from the platform's registry
// with the token of the pod's own service account, so that a pod gets the
// images its namespace may pull and no others. KEP-4412.
func writeCredentialProvider(o Options) (credentialProvider, error) {
	p := credentialProvider{
		config:   filepath.Join(o.Dirs.Node(), "credential-provider.json"),
		programs: o.Dirs.CredentialProviders(),
	}
	registry := "registry." + o.Domain
	required := true
	data, err := json.MarshalIndent(&kubeletv1.CredentialProviderConfig{
		TypeMeta: metav1.TypeMeta{APIVersion: kubeletv1.SchemeGroupVersion.String(), Kind: "CredentialProviderConfig"},
		Providers: []kubeletv1.CredentialProvider{{
			Name:                 providerName,
			APIVersion:           "credentialprovider.kubelet.k8s.io/v1",
			MatchImages:          []string{registry},
			DefaultCacheDuration: &metav1.Duration{},
			TokenAttributes: &kubeletv1.ServiceAccountTokenAttributes{
				ServiceAccountTokenAudience: registry,
				// The credential is the token, so it lives as long as that.
				CacheType:             kubeletv1.TokenServiceAccountTokenCacheType,
				RequireServiceAccount: &required,
			},
		}},
	}, "", "  ")
	if err != nil {
		return p, fmt.Errorf("make the credential provider's configuration: %w", err)
	}
	if err := durable.WriteFile(p.config, data, 0o600); err != nil {
		return p, fmt.Errorf("write the credential provider's configuration: %w", err)
	}
	exe, err := os.Executable()
	if err != nil {
		return p, fmt.Errorf("find this program: %w", err)
	}
	// The kernel says so when the file was replaced by a newer version, which
	// serves as well.
	exe = strings.TrimSuffix(exe, " (deleted)")
	if err := os.MkdirAll(p.programs, 0o755); err != nil {
		return p, fmt.Errorf("install the credential provider: %w", err)
	}
	link := filepath.Join(p.programs, providerName)
	if have, err := os.Readlink(link); err == nil && have == exe {
		return p, nil
	}
	tmp := link + ".new"
	if err := os.Remove(tmp); err != nil && !os.IsNotExist(err) {
		return p, fmt.Errorf("install the credential provider: %w", err)
	}
	if err := os.Symlink(exe, tmp); err != nil {
		return p, fmt.Errorf("install the credential provider: %w", err)
	}
	if err := os.Rename(tmp, link); err != nil {
		return p, fmt.Errorf("install the credential provider: %w", err)
	}
	return p, nil
}
