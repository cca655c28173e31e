package controlplane

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"github.com/emerald-platform/emerald/platform/pki"
)

// runAPIServer does what upstream's command does between parsing its flags and
// exiting, without its signal handler, which may be set up only once.
func runAPIServer(ctx context.Context, o Options) error {
	opts := options.NewServerRunOptions()
	if err := parse("kube-apiserver", opts.Flags(), apiServerFlags(o)); err != nil {
		return err
	}
	if err := opts.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("set kube-apiserver's feature gates: %w", err)
	}
	completed, err := opts.Complete(ctx)
	if err != nil {
		return fmt.Errorf("complete kube-apiserver's options: %w", err)
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return fmt.Errorf("validate kube-apiserver's options: %w", utilerrors.NewAggregate(errs))
	}
	return app.Run(ctx, completed)
}

func apiServerFlags(o Options) []string {
	cert, key := o.PKI.Cert, o.PKI.Key
	return []string{
		"--advertise-address=" + o.Address.String(),
		fmt.Sprintf("--secure-port=%d", APIPort),
		"--service-cluster-ip-range=" + o.ServiceCIDR,
		fmt.Sprintf("--etcd-servers=https://127.0.0.1:%d", EtcdClientPort),
		"--etcd-cafile=" + cert(pki.EtcdCA),
		"--etcd-certfile=" + cert(pki.APIServerEtcd), "--etcd-keyfile=" + key(pki.APIServerEtcd),
		"--tls-cert-file=" + cert(pki.APIServer), "--tls-private-key-file=" + key(pki.APIServer),
		"--client-ca-file=" + cert(pki.ClusterCA),
		"--kubelet-certificate-authority=" + cert(pki.ClusterCA),
		"--kubelet-client-certificate=" + cert(pki.APIServerKubelet), "--kubelet-client-key=" + key(pki.APIServerKubelet),
		// Node names need not resolve anywhere.
		"--kubelet-preferred-address-types=InternalIP,Hostname",
		"--requestheader-client-ca-file=" + cert(pki.FrontProxyCA),
		"--requestheader-allowed-names=front-proxy",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-uid-headers=X-Remote-Uid",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + cert(pki.FrontProxy), "--proxy-client-key-file=" + key(pki.FrontProxy),
		"--enable-aggregator-routing=true",
		"--service-account-issuer=https://kubernetes.default.svc." + o.ClusterDomain,
		"--service-account-key-file=" + key(pki.ServiceAccounts),
		"--service-account-signing-key-file=" + key(pki.ServiceAccounts),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		// Who may run privileged pods is for Pod Security to say, namespace by
		// namespace; without this, nobody may, in kube-system neither.
		"--allow-privileged=true",
		"--admission-control-config-file=" + filepath.Join(o.confDir(), admissionFile),
		"--enable-bootstrap-token-auth=true",
		"--authentication-config=" + filepath.Join(o.confDir(), authenticationFile),
		"--encryption-provider-config=" + filepath.Join(o.confDir(), encryptionFile),
		"--encryption-provider-config-automatic-reload=true",
		"--audit-policy-file=" + filepath.Join(o.confDir(), auditFile),
		"--audit-log-path=" + filepath.Join(o.logDir(), "audit.log"),
		"--audit-log-maxsize=50", "--audit-log-maxbackup=10", "--audit-log-maxage=30", "--audit-log-compress=true",
		"--audit-log-mode=batch",
		"--profiling=false",
		"--event-ttl=1h",
		// Without it, watches keep a server that shall stop alive for a minute.
		"--shutdown-watch-termination-grace-period=3s",
	}
}

// parse fills the options behind the flag sets from a command line, as the
// component's own command would.
func parse(component string, sets cliflag.NamedFlagSets, args []string) error {
	all := pflag.NewFlagSet(component, pflag.ContinueOnError)
	all.SetOutput(io.Discard)
	for _, set := range sets.FlagSets {
		all.AddFlagSet(set)
	}
	if err := all.Parse(args); err != nil {
		return fmt.Errorf("parse the flags of %s: %w", component, err)
	}
	return nil
}
