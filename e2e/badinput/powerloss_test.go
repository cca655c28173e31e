//go:build e2e

package badinput

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/emerald-platform/emerald/e2e/fixture"
)

// random returns bytes that nothing compresses.
func random(t *testing.T, n int) string {
	t.Helper()
	raw := make([]byte, n)
	if _, err := rand.NewChaCha8([32]byte{}).Read(raw); err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// mended are files that the platform makes anew when they are damaged.
var mended = []string{
	"pki/admin.crt", "pki/apiserver.key", "pki/etcd-server.crt", "pki/machine.crt", "pki/front-proxy.key",
	"conf/admin.kubeconfig", "conf/audit.yaml", "conf/scheduler.kubeconfig",
	"node/selfimage.json", "node/footprint.json", "node/kube-proxy.json", "node/credential-provider.json",
	"kubelet/kubeconfig", "kubelet/cpu_manager_state", "kubelet/allocated_pods_state", "kubelet/dra_manager_state",
	"kubelet/pki/kubelet-client-current.pem",
	"bin/runc", "cni/bin/emerald-cni", "cni/net.d/10-emerald.conflist",
	"containerd/config.toml", "containerd/certs.d/registry.emerald.localhost/hosts.toml",
	"containerd/root/io.containerd.metadata.v1.bolt/meta.db", "containerd/root/io.containerd.snapshotter.v1.overlayfs/metadata.db",
}

// identity are files that nobody can make anew, and what is said of them.
var identity = map[string][]string{
	"pki/cluster-ca.crt":       {`the authority "cluster-ca", which is the cluster's identity`, "from a backup", "emerald down --wipe"},
	"pki/etcd-ca.key":          {`the key of the authority "etcd-ca"`, "from a backup", "emerald down --wipe"},
	"pki/service-accounts.key": {"the service account key", "from a backup", "rm "},
	"conf/encryption.yaml":     {"the key that encrypts secrets", "it is damaged", "from a backup", "emerald down --wipe"},
}

// powerLoss ends everything at once, damages files, and starts the platform
// again. What can be made anew is, and what cannot is named and left alone.
func powerLoss(t *testing.T, m *fixture.Machine, up []string, serves func()) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("the seed of the damage is %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	m.KillProcess("machine.lock")
	m.KillProcess("containerd.lock")
	m.Emerald("down")

	// One of the files that are the cluster itself, drawn by lot.
	names := []string{"pki/cluster-ca.crt", "pki/etcd-ca.key", "pki/service-accounts.key", "conf/encryption.yaml"}
	name := names[dice.IntN(len(names))]
	whole := damage(t, m, name, dice)
	refused(t, m, 1, up, append(identity[name], "emerald up", "emerald down", "log")...)
	path := filepath.Join(m.Dirs.Data, name)
	if now, err := os.ReadFile(path); err != nil || bytes.Equal(now, whole) {
		t.Errorf("%s was written: %v", name, err)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	// Nobody calls "up": the machine goes on trying by itself.
	waitFor(m, "the machine brings itself back")
	serves()

	m.Emerald("down")
	for _, name := range mended {
		if dice.IntN(2) == 0 {
			t.Logf("damaged: %s", name)
			damage(t, m, name, dice)
		}
	}
	m.Emerald(up...)
	m.Eventually("the node is ready", 3*time.Minute, m.NodeReady)
	serves()
}

// damage cuts a file short, somewhere, and returns what it held.
func damage(t *testing.T, m *fixture.Machine, name string, dice *rand.Rand) []byte {
	t.Helper()
	path := filepath.Join(m.Dirs.Data, name)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, dice.Int64N(int64(len(whole))*9/10)); err != nil {
		t.Fatal(err)
	}
	return whole
}
