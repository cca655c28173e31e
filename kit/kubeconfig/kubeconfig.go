// Package kubeconfig hands the way to the API to libraries that insist on
// reading it from a file.
//
// It promises that what the file says is just what the [rest.Config] says, the
// identity to impersonate and the code around the transport included, and that
// only its owner can read it.
package kubeconfig

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Write writes cfg into the file at path, replacing what is there. Tokens and
// keys that cfg takes from files stay in those files, so that their renewal is
// seen. What cfg wraps around its transport is code: the file names it, and only
// this process finds it by that name. A cfg with a custom transport, an exec
// plugin or an auth provider is refused: a file cannot say the same.
func Write(path string, cfg *rest.Config) error {
	if cfg.Transport != nil || cfg.ExecProvider != nil || cfg.AuthProvider != nil {
		return fmt.Errorf("write kubeconfig %q: the connection is made by code, which a file cannot hold", path)
	}
	const name = "cluster"
	out := clientcmdapi.NewConfig()
	out.CurrentContext = name
	out.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	out.Clusters[name] = &clientcmdapi.Cluster{
		Server:                   cfg.Host,
		TLSServerName:            cfg.ServerName,
		InsecureSkipTLSVerify:    cfg.Insecure,
		CertificateAuthority:     cfg.CAFile,
		CertificateAuthorityData: cfg.CAData,
		DisableCompression:       cfg.DisableCompression,
	}
	out.AuthInfos[name] = &clientcmdapi.AuthInfo{
		ClientCertificate:     cfg.CertFile,
		ClientCertificateData: cfg.CertData,
		ClientKey:             cfg.KeyFile,
		ClientKeyData:         cfg.KeyData,
		Token:                 cfg.BearerToken,
		TokenFile:             cfg.BearerTokenFile,
		Username:              cfg.Username,
		Password:              cfg.Password,
		Impersonate:           cfg.Impersonate.UserName,
		ImpersonateUID:        cfg.Impersonate.UID,
		ImpersonateGroups:     cfg.Impersonate.Groups,
		ImpersonateUserExtra:  maps.Clone(cfg.Impersonate.Extra),
	}
	if cfg.WrapTransport != nil {
		p := wrapper(cfg.WrapTransport)
		provider := "emerald-" + rand.Text()
		if err := rest.RegisterAuthProviderPlugin(provider, p.find); err != nil {
			return fmt.Errorf("write kubeconfig %q: %w", path, err)
		}
		out.AuthInfos[name].AuthProvider = &clientcmdapi.AuthProviderConfig{Name: provider}
	}
	if err := clientcmd.WriteToFile(*out, path); err != nil {
		return fmt.Errorf("write kubeconfig %q: %w", path, err)
	}
	return nil
}

// wrapper is a wrapped transport in the one form in which a kubeconfig can name
// code: client-go's auth providers. It has nothing to do with who one is.
type wrapper func(http.RoundTripper) http.RoundTripper

// find implements rest.Factory.
func (w wrapper) find(string, map[string]string, rest.AuthProviderConfigPersister) (rest.AuthProvider, error) {
	return w, nil
}

// WrapTransport implements rest.AuthProvider.
func (w wrapper) WrapTransport(next http.RoundTripper) http.RoundTripper { return w(next) }

// Login implements rest.AuthProvider.
func (wrapper) Login() error { return nil }
