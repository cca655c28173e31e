package controlplane

import (
	"fmt"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/emerald-platform/emerald/kit/durable"
	"github.com/emerald-platform/emerald/platform/pki"
)

// writeKubeconfigs writes one kubeconfig per client certificate. They name the
// certificates' files instead of holding them, so that clients pick up renewed
// ones by themselves.
func writeKubeconfigs(o Options) error {
	for _, name := range []string{pki.ControllerManager, pki.Scheduler, pki.KubeProxy, pki.NodeBootstrap, pki.Machine, pki.Admin} {
		cfg := api.NewConfig()
		cfg.Clusters["emerald"] = &api.Cluster{Server: o.apiURL(), CertificateAuthority: o.PKI.Cert(pki.ClusterCA)}
		cfg.AuthInfos[name] = &api.AuthInfo{ClientCertificate: o.PKI.Cert(name), ClientKey: o.PKI.Key(name)}
		cfg.Contexts["emerald"] = &api.Context{Cluster: "emerald", AuthInfo: name}
		cfg.CurrentContext = "emerald"
		raw, err := clientcmd.Write(*cfg)
		if err != nil {
			return fmt.Errorf("encode the kubeconfig of %s: %w", name, err)
		}
		if err := durable.WriteFile(o.Kubeconfig(name), raw, 0o600); err != nil {
			return fmt.Errorf("write the kubeconfig of %s: %w", name, err)
		}
	}
	return nil
}
