package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/emerald-platform/emerald/platform/dirs"
)

const ownersKubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: local, cluster: {server: "https://127.0.0.1:6443"}}]
users: [{name: admin, user: {token: t}}]
contexts: [{name: local, context: {cluster: local, user: admin}}]
current-context: local
`

// FuzzMergeKubeconfig starts with any file as ~/.kube/config: it is refused and
// stays as it is, or whatever it says of other clusters is still there, with us
// and after us.
func FuzzMergeKubeconfig(f *testing.F) {
	f.Add("")
	f.Add(ownersKubeconfig)
	f.Add("apiVersion: v1\nkind: Config\ncontexts: [{name: emerald, context: {cluster: x, user: y, namespace: mine}}]\ncurrent-context: other\n")
	f.Add("contexts: [{name: a}]\nclusters: [{name: a, cluster: {certificate-authority: ca.crt}}]\nusers: null\n")
	f.Add("{")
	f.Fuzz(func(t *testing.T, content string) {
		home := t.TempDir()
		t.Setenv("HOME", home)
		d := dirs.Dirs{Data: t.TempDir()}
		write(t, d.InData("conf", "admin.kubeconfig"), ownersKubeconfig)
		path := filepath.Join(home, ".kube", "config")
		write(t, path, content)
		before, loadErr := clientcmd.LoadFromFile(path)

		if _, err := mergeKubeconfig(d); err != nil {
			if loadErr == nil {
				t.Fatalf("kubectl reads %q, we don't: %v", content, err)
			}
			if left, err := os.ReadFile(path); err != nil || string(left) != content {
				t.Fatalf("%q was refused and is %q now, %v", content, left, err)
			}
			return
		}
		merged, err := clientcmd.LoadFromFile(path)
		if err != nil {
			t.Fatalf("after the merge nobody can read it: %v", err)
		}
		ours := merged.Contexts[contextName]
		if ours == nil || merged.Clusters[ours.Cluster] == nil || merged.AuthInfos[ours.AuthInfo] == nil {
			t.Fatalf("%q has no way to the cluster after the merge: %+v", content, merged)
		}
		if err := unmergeKubeconfig(); err != nil {
			t.Fatal(err)
		}
		after, err := clientcmd.LoadFromFile(path)
		if os.IsNotExist(err) {
			after, err = clientcmd.Load(nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		for name, was := range before.Clusters {
			if is := after.Clusters[name]; name != contextName && (is == nil || is.Server != was.Server) {
				t.Errorf("cluster %q was %+v and is %+v", name, was, is)
			}
		}
		for name, was := range before.Contexts {
			if is := after.Contexts[name]; name != contextName && (is == nil || is.Cluster != was.Cluster || is.AuthInfo != was.AuthInfo) {
				t.Errorf("context %q was %+v and is %+v", name, was, is)
			}
		}
		for name, was := range before.AuthInfos {
			if is := after.AuthInfos[name]; name != contextName && (is == nil || is.Token != was.Token) {
				t.Errorf("user %q was %+v and is %+v", name, was, is)
			}
		}
		if was := before.CurrentContext; was != "" && was != contextName && len(after.Contexts) > 0 {
			if diff := cmp.Diff(was, after.CurrentContext); diff != "" {
				t.Errorf("current context (-before +after):\n%s", diff)
			}
		}
	})
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// FuzzParseHealth checks that what --health takes is a path and a port, if any.
func FuzzParseHealth(f *testing.F) {
	for _, s := range []string{"tcp", "/healthz", ":9000/healthz", ":9000", ":/", ":0", "/ ", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parseHealth(s)
		if err != nil {
			return
		}
		if h.Port < 0 || h.Port > 65535 || (h.Path != "" && h.Path[0] != '/') {
			t.Errorf("%q is %+v", s, h)
		}
	})
}
