package node

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	kubeletv1 "k8s.io/kubelet/config/v1"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/validation"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilfeature "k8s.io/apiserver/pkg/util/feature"

	"github.com/emerald-platform/emerald/platform/dirs"
)

func testOptions(t *testing.T) Options {
	t.Helper()
	root := t.TempDir()
	return Options{
		Name: "one", Address: netip.MustParseAddr("192.0.2.1"),
		Dirs: dirs.Dirs{Data: filepath.Join(root, "data"), Run: filepath.Join(root, "run")}, CgroupRoot: "/emerald-test",
		RuntimeSocket: "/run/x.sock", ClientCA: "/pki/ca.crt", ClusterDomain: "cluster.local", Domain: "example.com",
		ClusterDNS:      []netip.Addr{netip.MustParseAddr("10.43.0.10")},
		RegistryAddress: netip.MustParseAddr("10.43.0.11"),
		ClusterCIDRs:    []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16"), netip.MustParsePrefix("fd00:42::/32")},
		Ports:           DefaultPorts, Log: slog.New(slog.DiscardHandler),
	}
}

func TestPodResolvers(t *testing.T) {
	tests := map[string]struct {
		reason, in, want string
		servers          int
	}{
		"Plain":    {"what pods can reach stays", "search a b\nnameserver 192.0.2.53\noptions ndots:2\n", "search a b\nnameserver 192.0.2.53\noptions ndots:2\n", 1},
		"Stub":     {"systemd-resolved's stub is on the loopback", "nameserver 127.0.0.53\noptions edns0\n", "options edns0\n", 0},
		"SixStub":  {"so is ::1, also written as IPv4 in IPv6", "nameserver ::1\nnameserver ::ffff:127.0.0.1\nnameserver 2001:db8::53\n", "nameserver 2001:db8::53\n", 1},
		"Comments": {"comments and broken lines go", "# a\n; b\nnameserver\nnameserver nonsense\n\tnameserver\t192.0.2.1 # c\n", "nameserver 192.0.2.1 # c\n", 1},
		"Empty":    {"a host may know nobody", "", "", 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, servers := podResolvers(test.in)
			if got != test.want || servers != test.servers {
				t.Errorf("%s: got %q with %d servers, want %q with %d", test.reason, got, servers, test.want, test.servers)
			}
		})
	}
}

func FuzzPodResolvers(f *testing.F) {
	f.Add("nameserver 127.0.0.53\nnameserver 1.1.1.1\nsearch x\n")
	f.Fuzz(func(t *testing.T, in string) {
		once, servers := podResolvers(in)
		if again, n := podResolvers(once); again != once || n != servers {
			t.Errorf("%q: filtered twice it differs: %q, %q", in, once, again)
		}
		if strings.Contains(once, "nameserver 127.") {
			t.Errorf("%q: a loopback server is left in %q", in, once)
		}
	})
}

func TestResolverPrefersWhatPodsReach(t *testing.T) {
	dir := t.TempDir()
	stub, real := filepath.Join(dir, "stub"), filepath.Join(dir, "real")
	write := func(path, content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(stub, "nameserver 127.0.0.53\nsearch lan\n")
	r := &resolver{sources: []string{stub, real}, path: filepath.Join(dir, "out")}
	for _, test := range []struct{ real, want string }{
		{"", "search lan\n"}, // nobody to ask, but the search list is known
		{"nameserver 192.0.2.1\n", "nameserver 192.0.2.1\n"},
		{"nameserver 192.0.2.2\n", "nameserver 192.0.2.2\n"}, // the host's file changed
	} {
		if test.real != "" {
			write(real, test.real)
		}
		if err := r.write(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(r.path)
		if err != nil || string(got) != test.want {
			t.Errorf("with %q: got %q %v, want %q", test.real, got, err, test.want)
		}
	}
}

func TestKubeletConfiguration(t *testing.T) {
	o := testOptions(t)
	c, err := kubeletConfiguration(o, "/x/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	if err := validation.ValidateKubeletConfiguration(c, utilfeature.DefaultFeatureGate); err != nil {
		t.Error(err)
	}
	type facts struct {
		Anonymous, Webhook, V1Fatal, LogHandler bool
		ReadOnly                                int32
		Cgroup, Socket, Logs, DNS               string
	}
	got := facts{
		c.Authentication.Anonymous.Enabled, c.Authentication.Webhook.Enabled, c.FailCgroupV1, c.EnableSystemLogHandler,
		c.ReadOnlyPort, c.CgroupRoot, c.ContainerRuntimeEndpoint, c.PodLogsDir, strings.Join(c.ClusterDNS, ","),
	}
	want := facts{
		Anonymous: false, Webhook: true, V1Fatal: false, LogHandler: false, ReadOnly: 0,
		Cgroup: "/emerald-test", Socket: "unix:///run/x.sock", Logs: o.Dirs.PodLogs(), DNS: "10.43.0.10",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestProxyConfiguration(t *testing.T) {
	c := proxyConfiguration(testOptions(t))
	if string(c.Mode) != "nftables" || c.ClusterCIDR != "10.42.0.0/16,fd00:42::/32" || c.HealthzBindAddress != "127.0.0.1:10256" {
		t.Errorf("got mode %q, CIDRs %q, health %q", c.Mode, c.ClusterCIDR, c.HealthzBindAddress)
	}
	if *c.Conntrack.MaxPerCore != 0 || c.Conntrack.TCPEstablishedTimeout.Duration != 0 {
		t.Error("connection tracking is not left alone")
	}
}

func TestCredentialProvider(t *testing.T) {
	o := testOptions(t)
	if err := os.MkdirAll(o.Dirs.Node(), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		p, err := writeCredentialProvider(o)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(p.config)
		if err != nil {
			t.Fatal(err)
		}
		// As the kubelet reads it: strictly.
		scheme := runtime.NewScheme()
		if err := kubeletv1.AddToScheme(scheme); err != nil {
			t.Fatal(err)
		}
		c := new(kubeletv1.CredentialProviderConfig)
		if err := runtime.DecodeInto(serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDecoder(), data, c); err != nil {
			t.Fatal(err)
		}
		if got := c.Providers[0].TokenAttributes.ServiceAccountTokenAudience; got != "registry.example.com" {
			t.Errorf("audience %q", got)
		}
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		if target, err := os.Readlink(filepath.Join(p.programs, c.Providers[0].Name)); err != nil || target != exe {
			t.Errorf("provider is %q %v, want %q", target, err, exe)
		}
	}
}

func TestRegistryHost(t *testing.T) {
	o := testOptions(t)
	if err := writeRegistryHost(o, "PEM"); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(o.Dirs.RegistryHosts(), "registry.example.com")
	got, err := os.ReadFile(filepath.Join(dir, "hosts.toml"))
	if err != nil {
		t.Fatal(err)
	}
	want := "server = 'https://10.43.0.11'\n\n[host]\n[host.'https://10.43.0.11']\ncapabilities = ['pull', 'resolve', 'push']\nca = '" + dir + "/ca.crt'\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	o.RegistryAddress = netip.MustParseAddr("fd00::11")
	if err := writeRegistryHost(o, "PEM"); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "hosts.toml")); !strings.Contains(string(got), "'https://[fd00::11]'") {
		t.Errorf("IPv6: %s", got)
	}
}

func TestForgetStaleIdentity(t *testing.T) {
	kubeconfig := func(path, server, ca string) {
		t.Helper()
		c := clientcmdapi.NewConfig()
		c.Clusters["x"] = &clientcmdapi.Cluster{Server: server, CertificateAuthority: ca}
		c.AuthInfos["x"] = &clientcmdapi.AuthInfo{}
		c.Contexts["x"] = &clientcmdapi.Context{Cluster: "x", AuthInfo: "x"}
		c.CurrentContext = "x"
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := clientcmd.WriteToFile(*c, path); err != nil {
			t.Fatal(err)
		}
	}
	ca, other := filepath.Join(t.TempDir(), "ca"), filepath.Join(t.TempDir(), "other")
	for _, path := range []string{ca, other} {
		if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		reason string
		have   func(path string)
		keep   bool
	}{
		"None":      {"the first start", func(string) {}, false},
		"Same":      {"nothing changed", func(p string) { kubeconfig(p, "https://a:6443", ca) }, true},
		"Server":    {"the API moved", func(p string) { kubeconfig(p, "https://b:6443", ca) }, false},
		"Authority": {"another authority", func(p string) { kubeconfig(p, "https://a:6443", other) }, false},
		"Broken": {"cut short by a power loss", func(p string) {
			kubeconfig(p, "https://a:6443", ca)
			if err := os.Truncate(p, 20); err != nil {
				t.Fatal(err)
			}
		}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			o.BootstrapKubeconfig = filepath.Join(o.Dirs.Data, "bootstrap")
			kubeconfig(o.BootstrapKubeconfig, "https://a:6443", ca)
			test.have(o.Dirs.KubeletKubeconfig())
			if err := forgetStaleIdentity(o); err != nil {
				t.Fatal(err)
			}
			_, err := os.Stat(o.Dirs.KubeletKubeconfig())
			if kept := err == nil; kept != test.keep {
				t.Errorf("%s: kept %v, want %v", test.reason, kept, test.keep)
			}
		})
	}
}

// TestConfigurationIsJSON checks that what kube-proxy is given survives the
// way through its file.
func TestConfigurationIsJSON(t *testing.T) {
	data, err := json.Marshal(proxyConfiguration(testOptions(t)))
	if err != nil || !strings.Contains(string(data), `"kind":"KubeProxyConfiguration"`) {
		t.Errorf("%s %v", data, err)
	}
}
