package network_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/nftables"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/isolated"
	"github.com/emerald-platform/emerald/platform/network"
	"github.com/emerald-platform/emerald/platform/network/datapath"
	"github.com/emerald-platform/emerald/platform/network/plugin"
)

// TestMain makes the test binary the network plugin, too.
func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		plugin.Main()
		os.Exit(0)
	}
	isolated.Main(m)
}

var compareAddresses = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}

// api serves one Node and its changes, as little of the API as the package
// uses.
type api struct {
	changes chan *corev1.Node
}

func newAPI(t *testing.T) (*api, kubernetes.Interface) {
	t.Helper()
	a := &api{changes: make(chan *corev1.Node)}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	return a, client
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := json.NewEncoder(w)
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Query().Get("watch") == "" {
		_ = out.Encode(&corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}})
		return
	}
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = out.Encode(&metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Reason: metav1.StatusReasonInvalid, Code: 422})
		return
	}
	w.(http.Flusher).Flush()
	for version := 2; ; version++ {
		select {
		case <-r.Context().Done():
			return
		case n := <-a.changes:
			n.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}
			n.ResourceVersion = string(rune('0' + version))
			_ = out.Encode(map[string]any{"type": "MODIFIED", "object": n})
			w.(http.Flusher).Flush()
		}
	}
}

func node(ranges ...string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "one"}, Spec: corev1.NodeSpec{PodCIDRs: ranges}}
}

// start runs the network and stops it when the test ends.
func start(t *testing.T, o network.Options) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- network.Run(ctx, o) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// eventually looks until there is nothing to complain about.
func eventually(t *testing.T, look func() string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		complaint := look()
		if complaint == "" {
			return
		}
		select {
		case <-deadline:
			t.Fatal(complaint)
		case <-tick.C:
		}
	}
}

// await returns the configuration once it has the ranges.
func await(t *testing.T, d dirs.Dirs, ranges ...string) (out datapath.Config) {
	t.Helper()
	var want []netip.Prefix
	for _, r := range ranges {
		want = append(want, netip.MustParsePrefix(r))
	}
	eventually(t, func() string {
		c, err := network.ReadConfig(d)
		if err != nil || c == nil || !cmp.Equal(c.PodCIDRs, want, compareAddresses) {
			return fmt.Sprintf("configuration is %v %v, want %v", c, err, want)
		}
		out = *c
		return ""
	})
	return out
}

func TestRunFollowsTheNode(t *testing.T) {
	isolated.Require(t)
	a, client := newAPI(t)
	o := network.Options{
		Node: "one", Dirs: isolated.Dirs(t), Kube: client, Log: slog.New(slog.DiscardHandler),
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")},
	}
	t.Cleanup(func() { _ = datapath.RemoveTables() })
	stop := start(t, o)
	a.changes <- node() // registered, but without addresses yet
	a.changes <- node("10.42.3.0/24")
	c := await(t, o.Dirs, "10.42.3.0/24")
	if c.MTU != 1500 {
		t.Errorf("MTU is %d, want that of Ethernet where no uplink is known", c.MTU)
	}
	if forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); err != nil || strings.TrimSpace(string(forward)) != "1" {
		t.Errorf("the kernel does not forward: %s %v", forward, err)
	}
	a.changes <- node("10.42.4.0/24")
	await(t, o.Dirs, "10.42.4.0/24")
	stop()

	// A machine that starts without its API has its network all the same.
	if err := datapath.RemoveTables(); err != nil {
		t.Fatal(err)
	}
	o.Kube = kubernetes.NewForConfigOrDie(&rest.Config{Host: "http://127.0.0.1:1"})
	start(t, o)
	eventually(t, func() string {
		if len(tables(t)) == 0 {
			return "no rules without the API"
		}
		return ""
	})
}

// tables lists the nftables of the test's network namespace.
func tables(t *testing.T) []string {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	all, err := conn.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, table := range all {
		out = append(out, table.Name)
	}
	return out
}

// TestPlugin drives the plugin as a container runtime does, through the
// reference library, with the configuration that Run writes.
func TestPlugin(t *testing.T) {
	isolated.Require(t)
	a, client := newAPI(t)
	o := network.Options{Node: "one", Dirs: isolated.Dirs(t), Kube: client, Log: slog.New(slog.DiscardHandler)}
	t.Cleanup(func() { _ = datapath.RemoveTables() })
	start(t, o)
	a.changes <- node("10.42.3.0/24")
	await(t, o.Dirs, "10.42.3.0/24")

	if err := os.MkdirAll(o.Dirs.CNIBin(), 0o700); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(o.Dirs.CNIBin(), plugin.Type)); err != nil {
		t.Fatal(err)
	}
	list, err := libcni.ConfListFromFile(network.ConfigPath(o.Dirs))
	if err != nil {
		t.Fatal(err)
	}
	cni := libcni.NewCNIConfigWithCacheDir([]string{o.Dirs.CNIBin()}, t.TempDir(), nil)
	pod := &libcni.RuntimeConf{
		ContainerID: "abc", NetNS: isolated.NetNS(t), IfName: "eth0",
		Args:           [][2]string{{"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", "web"}},
		CapabilityArgs: map[string]any{"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}}},
	}
	if err := cni.GetStatusNetworkList(t.Context(), list); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	result, err := cni.AddNetworkList(t.Context(), list, pod)
	if err != nil {
		t.Fatalf("ADD: %v", err)
	}
	data, err := json.Marshal(result)
	if err != nil || !strings.Contains(string(data), `"address":"10.42.3.2/32","gateway":"169.254.1.1"`) {
		t.Errorf("ADD answered %s", data)
	}
	if err := cni.CheckNetworkList(t.Context(), list, pod); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	if err := cni.GCNetworkList(t.Context(), list, &libcni.GCArgs{}); err != nil {
		t.Errorf("GC: %v", err)
	}
	if err := cni.CheckNetworkList(t.Context(), list, pod); err == nil {
		t.Error("CHECK finds what GC was told is not valid")
	}
	for range 2 {
		if err := cni.DelNetworkList(t.Context(), list, pod); err != nil {
			t.Errorf("DEL: %v", err)
		}
	}
	left, err := datapath.New(datapath.Config{StateDir: o.Dirs.Network()}).Attachments()
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}
