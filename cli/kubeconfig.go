package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	certutil "k8s.io/client-go/util/cert"

	"github.com/emerald-platform/emerald/kit/durable"
	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/machine"
)

func newKubeconfigCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print a kubeconfig for this machine's cluster",
		Long: `Prints a self-contained kubeconfig with the rights of the cluster's owner, to
be carried to another computer. Treat it like a password. Its certificate ends
within three months: when, is told on standard error; fetch a fresh one before.

On the machine itself "emerald up" has put the context "emerald" into
~/.kube/config. That one names files which the platform renews, and never ends.`,
		Example: "  emerald kubeconfig > emerald.kubeconfig",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := ownKubeconfig(defaultDirs(), true)
			if err != nil {
				return err
			}
			raw, err := clientcmd.Write(*cfg)
			if err != nil {
				return fmt.Errorf("encode the kubeconfig: %w", err)
			}
			if _, err = e.out.Write(raw); err != nil {
				return err
			}
			if end, ok := endOf(cfg); ok {
				fmt.Fprintf(e.err, "valid until %s; then fetch a fresh one in the same way\n", end.Format("2 January 2006"))
			}
			return nil
		},
	}
}

// endOf returns when the certificate in a self-contained kubeconfig ends.
func endOf(cfg *api.Config) (time.Time, bool) {
	for _, user := range cfg.AuthInfos {
		if certs, err := certutil.ParseCertsPEM(user.ClientCertificateData); err == nil {
			return certs[0].NotAfter, true
		}
	}
	return time.Time{}, false
}

// ownKubeconfig returns the owner's way to the machine's cluster: by the files
// of its certificates, which are renewed in place and read anew by whoever uses
// them, or, for other computers, by the address these reach and with the
// certificates inside.
func ownKubeconfig(d dirs.Dirs, remote bool) (*api.Config, error) {
	cfg, err := clientcmd.LoadFromFile(d.InData("conf", "admin.kubeconfig"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("find this machine's cluster: none was ever started here: start one with: emerald up")
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("read the owner's kubeconfig: only root may: run it again with: sudo emerald kubeconfig")
	}
	if err != nil {
		return nil, fmt.Errorf("read the owner's kubeconfig: %w", err)
	}
	if remote {
		if err := api.FlattenConfig(cfg); err != nil {
			return nil, fmt.Errorf("read the owner's certificate: %w", err)
		}
		s, err := machine.LoadSettings(d)
		if err != nil {
			return nil, err
		}
		for _, c := range cfg.Clusters {
			c.Server = fmt.Sprintf("https://%s:6443", s.Address)
		}
	}
	return cfg, nil
}

// mergeKubeconfig writes the owner's way to the cluster into ~/.kube/config as
// the context [contextName], leaves everything else there as it is, and
// returns the file's path. It becomes the current context only where none was
// set.
func mergeKubeconfig(d dirs.Dirs) (string, error) {
	own, err := ownKubeconfig(d, false)
	if err != nil {
		return "", err
	}
	path := userKubeconfig()
	cfg, err := clientcmd.LoadFromFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		cfg = api.NewConfig()
	} else if err != nil {
		return "", fmt.Errorf("add the cluster to %s: %w: mend that file, then run again: emerald up", path, err)
	}
	for _, c := range own.Clusters {
		cfg.Clusters[contextName] = c
	}
	for _, u := range own.AuthInfos {
		cfg.AuthInfos[contextName] = u
	}
	have, ok := cfg.Contexts[contextName]
	if !ok {
		have = api.NewContext()
		cfg.Contexts[contextName] = have
	}
	// A namespace the user chose for the context stays.
	have.Cluster, have.AuthInfo = contextName, contextName
	if cfg.CurrentContext == "" {
		cfg.CurrentContext = contextName
	}
	return path, writeUserKubeconfig(path, cfg)
}

// unmergeKubeconfig takes the context out of ~/.kube/config again; a file that
// holds nothing else is removed.
func unmergeKubeconfig() error {
	path := userKubeconfig()
	cfg, err := clientcmd.LoadFromFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("take the cluster out of %s: %w", path, err)
	}
	delete(cfg.Clusters, contextName)
	delete(cfg.AuthInfos, contextName)
	delete(cfg.Contexts, contextName)
	if cfg.CurrentContext == contextName {
		cfg.CurrentContext = ""
	}
	if len(cfg.Clusters)+len(cfg.AuthInfos)+len(cfg.Contexts) == 0 {
		if err := os.Remove(path); err != nil {
			return err
		}
		// Only when empty: kubectl keeps its caches beside it.
		_ = os.Remove(filepath.Dir(path))
		return nil
	}
	return writeUserKubeconfig(path, cfg)
}

func userKubeconfig() string {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/root"
	}
	return filepath.Join(home, ".kube", "config")
}

func writeUserKubeconfig(path string, cfg *api.Config) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make %s: %w", filepath.Dir(path), err)
	}
	raw, err := clientcmd.Write(*cfg)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if err := durable.WriteFile(path, raw, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
