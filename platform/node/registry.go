package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/emerald-platform/emerald/kit/durable"
)

// trustBundle is the ClusterTrustBundle in which the platform publishes the
// authority of its certificates.
const trustBundle = "emerald-ca"

// hostsFile is the part of containerd's hosts.toml that is used here; see
// docs/hosts.md of containerd.
type hostsFile struct {
	Server string          `toml:"server"`
	Hosts  map[string]host `toml:"host"`
}

type host struct {
	Capabilities []string `toml:"capabilities"`
	CA           string   `toml:"ca"`
}

// runRegistryHosts tells the container runtime where the platform's registry
// is and whom to trust there, whenever the authority changes, until ctx ends.
// The runtime reads the files anew for every pull.
func runRegistryHosts(ctx context.Context, o Options, client kubernetes.Interface) error {
	put := func(object any) {
		bundle, ok := object.(*certificatesv1.ClusterTrustBundle)
		if !ok {
			return
		}
		if err := writeRegistryHost(o, bundle.Spec.TrustBundle); err != nil {
			o.Log.Error("registry not configured", "error", err)
		}
	}
	source := cache.NewListWatchFromClient(client.CertificatesV1().RESTClient(), "clustertrustbundles", "", fields.OneTermEqualSelector("metadata.name", trustBundle))
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: source,
		ObjectType:    new(certificatesv1.ClusterTrustBundle),
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    put,
			UpdateFunc: func(_, object any) { put(object) },
		},
	})
	informer.RunWithContext(ctx)
	return nil
}

// writeRegistryHost writes the registry's entry. The authority is written
// first: an entry that names a missing file would fail every pull.
func writeRegistryHost(o Options, authority string) error {
	dir := filepath.Join(o.Dirs.RegistryHosts(), "registry."+o.Domain)
	ca := filepath.Join(dir, "ca.crt")
	address := "https://" + o.RegistryAddress.String()
	if o.RegistryAddress.Is6() {
		address = "https://[" + o.RegistryAddress.String() + "]"
	}
	hosts, err := toml.Marshal(hostsFile{
		Server: address,
		Hosts:  map[string]host{address: {Capabilities: []string{"pull", "resolve", "push"}, CA: ca}},
	})
	if err != nil {
		return fmt.Errorf("describe the registry: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("describe the registry: %w", err)
	}
	return errors.Join(
		writeChanged(ca, []byte(authority)),
		writeChanged(filepath.Join(dir, "hosts.toml"), hosts),
	)
}

func writeChanged(path string, data []byte) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return nil
	}
	if err := durable.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
