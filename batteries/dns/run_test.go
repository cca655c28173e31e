package dns

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"golang.org/x/sync/errgroup"

	"github.com/emerald-platform/emerald/battery/batterytest"
	"github.com/emerald-platform/emerald/kit/kubeconfig"
)

// TestServe runs the whole server against an API that holds a small cluster and
// an upstream that knows one name.
func TestServe(t *testing.T) {
	api := newAPI(t)
	upstream := newUpstream(t, map[string]string{"known.example.": "192.0.2.80", "corp.example.": "192.0.2.81"})
	site := batterytest.Site(&Battery)
	site.Kube = api.kube()
	site.Log = slog.New(slog.NewTextHandler(io.Discard, nil))

	cfg := Battery.Config.(Config)
	cfg.Upstreams = []string{upstream}
	cfg.StubDomains = map[string][]string{"corp.example": {upstream}}
	cfg.Hosts = map[string][]string{"nas.home": {"192.0.2.9"}}
	srv := startServer(t, &server{site: site, config: cfg}, others())

	for _, tc := range []struct {
		name, qtype, code, want string
	}{
		{"kubernetes.default.svc.cluster.local.", "A", "NOERROR", "10.43.0.1"},
		{"web.team.svc.cluster.local.", "A", "NOERROR", "10.43.0.5"},
		{"WEB.team.svc.Cluster.local.", "A", "NOERROR", "10.43.0.5"},
		{"web.team.svc.cluster.local.", "AAAA", "NOERROR", ""},
		{"_http._tcp.web.team.svc.cluster.local.", "SRV", "NOERROR", "80 web.team.svc.cluster.local."},
		{"10.43.0.5", "PTR", "NOERROR", "web.team.svc.cluster.local."},
		{"crew.team.svc.cluster.local.", "A", "NOERROR", "10.42.0.8"},
		{"ann.crew.team.svc.cluster.local.", "A", "NOERROR", "10.42.0.8"},
		{"10-42-0-8.team.pod.cluster.local.", "A", "NOERROR", "10.42.0.8"},
		{"nobody.team.svc.cluster.local.", "A", "NXDOMAIN", ""},
		{"web.nowhere.svc.cluster.local.", "A", "NXDOMAIN", ""},

		{"emerald.localhost.", "A", "NOERROR", "10.43.0.9"},
		{"shop.emerald.localhost.", "A", "NOERROR", "10.43.0.9"},
		{"a.b.emerald.localhost.", "A", "NOERROR", "10.43.0.9"},
		{"shop.emerald.localhost.", "AAAA", "NOERROR", ""},
		{"notemerald.localhost.", "A", "NXDOMAIN", ""},

		{"nas.home.", "A", "NOERROR", "192.0.2.9"},
		{"known.example.", "A", "NOERROR", "192.0.2.80"},
		{"unknown.example.", "A", "NXDOMAIN", ""},
		{"corp.example.", "A", "NOERROR", "192.0.2.81"},
		{"192.0.2.200", "PTR", "NXDOMAIN", ""},
	} {
		for _, tcp := range []bool{false, true} {
			a := srv.lookup(t, Question{Name: tc.name, Type: tc.qtype, TCP: tcp})
			if a.Code != tc.code || strings.Join(a.Records, " ") != tc.want {
				t.Errorf("%s %s: got %s %q, want %s %q", tc.qtype, tc.name, a.Code, a.Records, tc.code, tc.want)
			}
		}
	}

	t.Run("CoreDNS waits for the API server as batteries do", func(t *testing.T) {
		api.mu.Lock()
		defer api.mu.Unlock()
		for _, path := range []string{"/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"} {
			if !slices.Contains(api.passed, path) {
				t.Errorf("its question for %s took another way than %q", path, api.passed)
			}
		}
	})
	t.Run("questions are counted", func(t *testing.T) {
		// An answer is sent before its question is counted: more are asked here
		// than can be late.
		const asked = 100
		before, deadline := questions(), time.Now().Add(10*time.Second)
		for range asked {
			srv.lookup(t, Question{Name: "web.team.svc.cluster.local."})
		}
		for questions() < before+asked {
			if time.Now().After(deadline) {
				t.Fatalf("%v after %d more than %v", questions(), asked, before)
			}
		}
	})
	t.Run("a denial names the zone that was asked about", func(t *testing.T) {
		in, err := mdns.Exchange(new(mdns.Msg).SetQuestion("shop.emerald.localhost.", mdns.TypeAAAA), srv.address)
		if err != nil {
			t.Fatal(err)
		}
		if len(in.Ns) != 1 || in.Ns[0].Header().Name != "emerald.localhost." {
			t.Errorf("authority: %v", in.Ns)
		}
	})
}

// TestServeOffline shows that a machine without resolvers says so, and that the
// machine's resolvers are asked as soon as they appear, without a lost query.
func TestServeOffline(t *testing.T) {
	api := newAPI(t)
	site := batterytest.Site(&Battery)
	site.Kube = api.kube()
	site.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	// A resolv.conf has no room for a port, and loopback is all a test may ask.
	const address = "127.0.0.77"
	anyone := func(netip.Addr) bool { return true }
	srv := startServer(t, &server{site: site, config: Battery.Config.(Config)}, anyone)

	outside := Question{Name: "known.example."}
	if a := srv.lookup(t, outside); a.Code != "SERVFAIL" {
		t.Errorf("without a resolver: %v", a)
	}
	serveUpstream(t, net.JoinHostPort(address, "53"), map[string]string{"known.example.": "192.0.2.80"})
	api.setResolvConf(t, "nameserver "+address+"\n")
	deadline := time.Now().Add(10 * time.Second)
	for {
		// The cluster's names never waver meanwhile.
		if a := srv.lookup(t, Question{Name: "web.team.svc.cluster.local."}); a.Code != "NOERROR" {
			t.Fatalf("during the change: %v", a)
		}
		a := srv.lookup(t, outside)
		if slices.Equal(a.Records, []string{"192.0.2.80"}) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the new resolver is not asked after ten seconds: %v", a)
		}
	}
}

// TestStopAtOnce tells a server to go the moment it begins.
func TestStopAtOnce(t *testing.T) {
	api := newAPI(t)
	site := batterytest.Site(&Battery)
	site.Kube = api.kube()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := kubeconfig.Write(file, site.Kube); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		found, err := newResolvers(site.Kube, filepath.Join(t.TempDir(), "resolv.conf"), func(netip.Addr) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		site.Log = slog.New(slog.NewTextHandler(onStart(cancel), nil))
		srv := &server{site: site, config: Battery.Config.(Config), place: place{port: freePort(t), metrics: "127.0.0.1:0", kubeconfig: file}}
		ended := make(chan error, 2)
		go func() { found.run(ctx); ended <- nil }()
		go func() { ended <- srv.serve(ctx, found) }()
		for range 2 {
			select {
			case err := <-ended:
				if err != nil {
					t.Fatal(err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("it does not end")
			}
		}
	}
}

// onStart is a log that calls itself when the server says that it starts.
type onStart func()

func (f onStart) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "msg=starting") {
		f()
	}
	return len(p), nil
}

// running is a started server.
type running struct{ address string }

func (r running) lookup(t *testing.T, q Question) Answer {
	t.Helper()
	q.Server = r.address
	a, err := Lookup(t.Context(), ResolvConf, q)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// startServer runs s until the test ends and returns once it is ready. The
// server must end in good order.
func startServer(t *testing.T, s *server, usable func(netip.Addr) bool) running {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "kubeconfig")
	if err := kubeconfig.Write(file, s.site.Kube); err != nil {
		t.Fatal(err)
	}
	found, err := newResolvers(s.site.Kube, filepath.Join(dir, "resolv.conf"), usable)
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	s.place = place{port: port, metrics: "127.0.0.1:0", kubeconfig: file}
	ctx, cancel := context.WithCancel(t.Context())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { found.run(ctx); return nil })
	g.Go(func() error { return s.serve(ctx, found) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	within, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	if !answering(within, port, s.site.ClusterDomain) {
		t.Fatal("not ready in time")
	}
	return running{net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
}

// freePort returns a port that is free for UDP and TCP.
func freePort(t *testing.T) int {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		if u, err := net.ListenPacket("udp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			u.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// newUpstream is serveUpstream on a port of its own.
func newUpstream(t *testing.T, records map[string]string) string {
	t.Helper()
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	serveUpstream(t, address, records)
	return address
}

// serveUpstream serves A records and denies every other name. It skips the test
// where the address is not allowed.
func serveUpstream(t *testing.T, address string, records map[string]string) {
	t.Helper()
	handler := mdns.HandlerFunc(func(w mdns.ResponseWriter, r *mdns.Msg) {
		m := new(mdns.Msg).SetReply(r)
		q := r.Question[0]
		if ip, ok := records[q.Name]; ok && q.Qtype == mdns.TypeA {
			m.Answer = append(m.Answer, &mdns.A{
				Hdr: mdns.RR_Header{Name: q.Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: 60}, A: net.ParseIP(ip),
			})
		} else if !ok {
			m.Rcode = mdns.RcodeNameError
		}
		_ = w.WriteMsg(m)
	})
	packets, err := net.ListenPacket("udp", address)
	if errors.Is(err, fs.ErrPermission) {
		t.Skipf("listen on %s: %v", address, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	stream, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*mdns.Server{{PacketConn: packets, Handler: handler}, {Listener: stream, Handler: handler}} {
		listening := make(chan struct{})
		s.NotifyStartedFunc = func() { close(listening) }
		var g errgroup.Group
		g.Go(s.ActivateAndServe)
		<-listening
		t.Cleanup(func() {
			_ = s.Shutdown()
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// fakeAPI is as much of an API server as a client that lists and watches needs.
type fakeAPI struct {
	*httptest.Server
	resolvConf chan string
	closing    chan struct{} // closed when the server ends

	mu     sync.Mutex
	passed []string // the paths of requests that took the way of kube
}

// kube is the way to the API, with something around it as in a battery's pod.
func (a *fakeAPI) kube() *rest.Config {
	cfg := &rest.Config{Host: a.URL, TLSClientConfig: rest.TLSClientConfig{
		CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw}),
	}}
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return noting{a, next} })
	return cfg
}

// noting notes the requests that pass.
type noting struct {
	api  *fakeAPI
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (n noting) RoundTrip(r *http.Request) (*http.Response, error) {
	n.api.mu.Lock()
	n.api.passed = append(n.api.passed, r.URL.Path)
	n.api.mu.Unlock()
	return n.next.RoundTrip(r)
}

// setResolvConf returns when one that watches was told.
func (a *fakeAPI) setResolvConf(t *testing.T, text string) {
	t.Helper()
	select {
	case a.resolvConf <- text:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody watches the machine's settings")
	}
}

func newAPI(t *testing.T) *fakeAPI {
	a := &fakeAPI{resolvConf: make(chan string), closing: make(chan struct{})}
	name := func(ns, n string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: ns, Name: n, UID: "1", ResourceVersion: "1"}
	}
	service := func(ns, n, ip string) corev1.Service {
		return corev1.Service{ObjectMeta: name(ns, n), Spec: corev1.ServiceSpec{
			ClusterIP: ip, ClusterIPs: []string{ip}, Type: corev1.ServiceTypeClusterIP,
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
		}}
	}
	hostname, ready, port, portName, tcp := "ann", true, int32(8080), "http", corev1.ProtocolTCP
	slice := discoveryv1.EndpointSlice{
		ObjectMeta: name("team", "crew-1"), AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{"10.42.0.8"}, Hostname: &hostname, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		}},
		Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: &port, Protocol: &tcp}},
	}
	slice.Labels = map[string]string{discoveryv1.LabelServiceName: "crew"}
	var namespaces []corev1.Namespace
	for _, n := range []string{"default", "team", "emerald-gateway"} {
		namespaces = append(namespaces, corev1.Namespace{ObjectMeta: name("", n)})
	}
	lists := map[string]runtime.Object{
		"/api/v1/namespaces": &corev1.NamespaceList{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NamespaceList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: namespaces,
		},
		"/api/v1/services": &corev1.ServiceList{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"},
			Items: []corev1.Service{
				service("default", "kubernetes", "10.43.0.1"), service("team", "web", "10.43.0.5"),
				service("team", "crew", corev1.ClusterIPNone), service("emerald-gateway", "gateway", "10.43.0.9"),
			},
		},
		"/apis/discovery.k8s.io/v1/endpointslices": &discoveryv1.EndpointSliceList{
			TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSliceList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"},
			Items: []discoveryv1.EndpointSlice{slice},
		},
		"/api/v1/namespaces/emerald-system/configmaps": &corev1.ConfigMapList{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMapList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"},
		},
	}
	a.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		list, ok := lists[r.URL.Path]
		query := r.URL.Query()
		switch {
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		case query.Get("sendInitialEvents") == "true":
			// As a server does that has no streaming lists.
			w.WriteHeader(http.StatusUnprocessableEntity)
			_ = json.NewEncoder(w).Encode(metav1.Status{
				TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
				Status:   "Failure", Reason: metav1.StatusReasonInvalid, Code: http.StatusUnprocessableEntity,
			})
		case slices.Contains([]string{"true", "1"}, query.Get("watch")):
			a.watch(w, r)
		default:
			_ = json.NewEncoder(w).Encode(list)
		}
	}))
	t.Cleanup(func() { close(a.closing); a.CloseClientConnections(); a.Close() })
	return a
}

// watch sends what setResolvConf was given to those who watch ConfigMaps.
func (a *fakeAPI) watch(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	changes := a.resolvConf
	if !strings.HasSuffix(r.URL.Path, "/configmaps") {
		changes = nil
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case <-a.closing:
			return
		case text := <-changes:
			cm := corev1.ConfigMap{
				TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
				ObjectMeta: metav1.ObjectMeta{Namespace: "emerald-system", Name: hostSettings, UID: "1", ResourceVersion: "2"},
				Data:       map[string]string{hostResolvConf: text},
			}
			raw, _ := json.Marshal(cm)
			_ = json.NewEncoder(w).Encode(metav1.WatchEvent{Type: "ADDED", Object: runtime.RawExtension{Raw: raw}})
			w.(http.Flusher).Flush()
		}
	}
}
