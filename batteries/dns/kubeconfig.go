package dns

import (
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// podToken is where a pod finds its service account's token.
const podToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// writeKubeconfig writes the way to the API into a file, readable by its owner
// alone, for CoreDNS to read, and returns its path. In a pod it writes nothing
// and returns "": CoreDNS finds the pod's service account by itself.
func writeKubeconfig(path string, cfg *rest.Config) (string, error) {
	if cfg.BearerTokenFile == podToken {
		return "", nil
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
	}
	out.AuthInfos[name] = &clientcmdapi.AuthInfo{
		ClientCertificate:     cfg.CertFile,
		ClientCertificateData: cfg.CertData,
		ClientKey:             cfg.KeyFile,
		ClientKeyData:         cfg.KeyData,
		Token:                 cfg.BearerToken,
		TokenFile:             cfg.BearerTokenFile,
	}
	if err := clientcmd.WriteToFile(*out, path); err != nil {
		return "", fmt.Errorf("write kubeconfig %q: %w", path, err)
	}
	return path, nil
}
