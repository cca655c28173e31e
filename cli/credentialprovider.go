package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	credentialprovider "k8s.io/kubelet/pkg/apis/credentialprovider/v1"
)

// newCredentialProviderCommand is the kubelet's credential provider plugin for
// the platform's registry: it hands the token of the pod's own service account,
// which the kubelet passes to it, on as password (KEP-2133, KEP-4412).
func newCredentialProviderCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:    "credential-provider",
		Short:  "Answer the kubelet's question for a registry password",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return provideCredentials(e.in, e.out)
		},
	}
}

// maxRequest is far more than the kubelet sends.
const maxRequest = 1 << 20

// provideCredentials answers one CredentialProviderRequest.
func provideCredentials(in io.Reader, out io.Writer) error {
	var req credentialprovider.CredentialProviderRequest
	if err := json.NewDecoder(io.LimitReader(in, maxRequest)).Decode(&req); err != nil {
		// The cause may quote the token.
		return errors.New("understand the kubelet's request: it is no CredentialProviderRequest in JSON on standard input")
	}
	version := credentialprovider.SchemeGroupVersion.String()
	if req.APIVersion != version || req.Kind != "CredentialProviderRequest" {
		return fmt.Errorf("understand the kubelet's request: it is a %s of %s, not a CredentialProviderRequest of %s: set apiVersion in the CredentialProviderConfig",
			req.Kind, req.APIVersion, version)
	}
	host, _, _ := strings.Cut(req.Image, "/")
	if host == "" || req.ServiceAccountToken == "" {
		return fmt.Errorf("answer for image %q: the request has no service account token: set tokenAttributes in the CredentialProviderConfig", req.Image)
	}
	resp := credentialprovider.CredentialProviderResponse{
		TypeMeta: metav1.TypeMeta{APIVersion: version, Kind: "CredentialProviderResponse"},
		// Every image of this registry takes the same token. The kubelet keeps the
		// answers for different tokens apart, and renews a token when a fifth of
		// its life, twelve minutes, is left.
		CacheKeyType:  credentialprovider.RegistryPluginCacheKeyType,
		CacheDuration: &metav1.Duration{Duration: 5 * time.Minute},
		Auth: map[string]credentialprovider.AuthConfig{
			host: {Username: "serviceaccount", Password: req.ServiceAccountToken},
		},
	}
	if err := json.NewEncoder(out).Encode(resp); err != nil {
		return fmt.Errorf("answer the kubelet: %w", err)
	}
	return nil
}
