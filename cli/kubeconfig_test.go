package cli

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/machine"
	"github.com/emerald-platform/emerald/platform/pki"
)

// ownedMachine makes the part of a data directory that says who rules it.
func ownedMachine(t *testing.T) (dirs.Dirs, *pki.PKI) {
	t.Helper()
	d := dirs.Dirs{Data: t.TempDir(), Run: t.TempDir()}
	if err := machine.SaveSettings(d, machine.Settings{Node: "one", Address: "192.0.2.1", Domain: "emerald.localhost"}); err != nil {
		t.Fatal(err)
	}
	keys, err := pki.Open(d.InData("pki"), pki.Identity{
		Node: "one", Addresses: []net.IP{net.IPv4(192, 0, 2, 1)}, ServiceAddress: net.IPv4(10, 43, 0, 1), ClusterDomain: "cluster.local",
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := api.NewConfig()
	cfg.Clusters["emerald"] = &api.Cluster{Server: "https://127.0.0.1:6443", CertificateAuthority: keys.Cert(pki.ClusterCA)}
	cfg.AuthInfos["admin"] = &api.AuthInfo{ClientCertificate: keys.Cert(pki.Admin), ClientKey: keys.Key(pki.Admin)}
	cfg.Contexts["emerald"] = &api.Context{Cluster: "emerald", AuthInfo: "admin"}
	cfg.CurrentContext = "emerald"
	if err := clientcmd.WriteToFile(*cfg, d.InData("conf", "admin.kubeconfig")); err != nil {
		t.Fatal(err)
	}
	return d, keys
}

// The merged context names the files that are renewed in place, so it never
// ends; what others put into the file stays.
func TestMergeKubeconfig(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	path := userKubeconfig()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	const others = `{apiVersion: v1, kind: Config, current-context: work, contexts: [{name: work, context: {cluster: work, user: me}}],
clusters: [{name: work, cluster: {server: "https://work.example"}}], users: [{name: me, user: {token: secret}}]}`
	if err := os.WriteFile(path, []byte(others), 0o600); err != nil {
		t.Fatal(err)
	}
	d, keys := ownedMachine(t)
	for range 2 { // again changes nothing
		if _, err := mergeKubeconfig(d); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := clientcmd.LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.CurrentContext != "work" || cfg.AuthInfos["me"].Token != "secret" {
		t.Errorf("the file has the current context %q and the users %v", cfg.CurrentContext, cfg.AuthInfos)
	}
	user := cfg.AuthInfos[contextName]
	if user.ClientCertificate != keys.Cert(pki.Admin) || len(user.ClientCertificateData)+len(user.ClientKeyData) > 0 {
		t.Errorf("the context's certificate is %q, with %d bytes inside", user.ClientCertificate, len(user.ClientCertificateData))
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v, %v", info.Mode(), err)
	}
	if err := unmergeKubeconfig(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(raw), contextName) || !strings.Contains(string(raw), "secret") {
		t.Errorf("after the wipe the file is %s, %v", raw, err)
	}
}

// What is carried to another computer holds its certificates, and says when
// they end.
func TestRemoteKubeconfig(t *testing.T) {
	d, keys := ownedMachine(t)
	cfg, err := ownKubeconfig(d, true)
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Clusters["emerald"].Server; got != "https://192.0.2.1:6443" {
		t.Errorf("its server is %s", got)
	}
	raw, err := clientcmd.Write(*cfg)
	if err != nil || strings.Contains(string(raw), keys.Cert(pki.Admin)) {
		t.Errorf("it names files of this machine: %s, %v", raw, err)
	}
	if _, ok := endOf(cfg); !ok {
		t.Error("it does not know when it ends")
	}
}

// What this host trusts because of a platform is remembered for its wipe, and
// nothing that another platform is the reason for.
func TestIsOwn(t *testing.T) {
	d, _ := ownedMachine(t)
	for server, want := range map[string]bool{
		"https://127.0.0.1:6443": true, "https://192.0.2.1:6443": true, "https://192.0.2.2:6443": false, "https://work.example": false,
	} {
		if got, err := isOwn(d, server); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", server, got, err, want)
		}
	}
	if got, err := isOwn(dirs.Dirs{Data: t.TempDir()}, "https://127.0.0.1:6443"); err != nil || got {
		t.Errorf("a machine that was never started: %v, %v", got, err)
	}
}
