package host_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/battery/host"
)

type config struct {
	Zones []string `json:"zones"`
}

// process is a running host.
type process struct {
	t     *testing.T
	url   string
	stop  context.CancelFunc
	ended chan error
}

// start runs a battery of its own, called demo, whose Run is given.
func start(t *testing.T, run func(context.Context, battery.Site) error) *process {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "site.json")
	settings := `{"domain": "example.org", "image": "i", "replicas": 2, "clusterDomain": "cluster.local", "dnsAddress": "10.43.0.10",
		"registryAddress": "10.43.0.11", "dataDir": "/d", "config": {"zones": ["b"]}}`
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p := &process{t: t, url: "http://" + l.Addr().String(), stop: cancel, ended: make(chan error, 1)}
	all := []battery.Battery{{
		Name: "demo", Doc: "Shows.", Where: battery.Own, Run: run, Config: config{Zones: []string{"a"}},
	}}
	go func() {
		p.ended <- host.Run(ctx, host.Options{
			Batteries: all, What: "demo", SiteFile: file, Kube: &rest.Config{Host: "http://127.0.0.1:1"}, Listen: l,
		})
	}()
	t.Cleanup(cancel)
	return p
}

// get returns the status and the body of a page of the health port.
func (p *process) get(path string) string {
	p.t.Helper()
	resp, err := http.Get(p.url + path)
	if err != nil {
		return "no answer"
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, strings.TrimSpace(string(body)))
}

func (p *process) wait() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(10 * time.Second):
		p.t.Fatal("the process does not end")
		return nil
	}
}

func TestLifeOfABattery(t *testing.T) {
	sites, release, finish := make(chan battery.Site, 1), make(chan struct{}), make(chan struct{})
	told := make(chan struct{})
	p := start(t, func(ctx context.Context, s battery.Site) error {
		sites <- s
		<-release
		s.Ready()
		s.Ready() // more often than once is fine
		<-ctx.Done()
		close(told)
		<-finish // last connections
		return nil
	})
	s := <-sites
	want := battery.Site{
		Domain: "example.org", Namespace: "emerald-demo", Image: "i", Replicas: 2, ClusterDomain: "cluster.local",
		DNSAddress: "10.43.0.10", RegistryAddress: "10.43.0.11", DataDir: "/d", Config: config{Zones: []string{"b"}},
	}
	if s.Kube == nil || s.Log == nil || s.Ready == nil || s.Leave == nil {
		t.Errorf("Kube %v, Log %v, Ready, Leave: one of them is nil", s.Kube, s.Log)
	}
	got := s
	got.Kube, got.Log, got.Ready, got.Leave = nil, nil, nil, nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("site (-want +got):\n%s", diff)
	}
	if got := p.get("/livez"); got != "200 ok" {
		t.Errorf("/livez = %q before it is ready", got)
	}
	if got := p.get("/readyz"); got != "503 not ready yet: demo" {
		t.Errorf("/readyz = %q before it is ready", got)
	}
	close(release)
	deadline := time.Now().Add(10 * time.Second)
	for p.get("/readyz") != "200 ok" {
		if time.Now().After(deadline) {
			t.Fatal("it never gets ready")
		}
	}
	if got := p.get("/metrics"); !strings.Contains(got, "go_goroutines") {
		t.Errorf("/metrics has no go_goroutines: %q", got)
	}
	p.stop()
	<-told
	if got := p.get("/readyz"); got != "200 ok" {
		t.Errorf("/readyz = %q while the battery finishes: nobody would ask it though there may be no other", got)
	}
	s.Leave()
	if got := p.get("/readyz"); got != "503 not ready yet: demo" {
		t.Errorf("/readyz = %q after the battery took it back", got)
	}
	close(finish)
	if err := p.wait(); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	if got := p.get("/livez"); got != "no answer" {
		t.Errorf("/livez = %q after the end", got)
	}
}

func TestABatteryThatFails(t *testing.T) {
	broken := errors.New("the disk is full")
	p := start(t, func(context.Context, battery.Site) error { return broken })
	if err := p.wait(); !errors.Is(err, broken) || !strings.Contains(err.Error(), `run battery "demo"`) {
		t.Errorf("Run = %v, want %v of battery demo", err, broken)
	}
}

func TestABatteryThatStopsByItself(t *testing.T) {
	p := start(t, func(context.Context, battery.Site) error { return nil })
	if err := p.wait(); err == nil || !strings.Contains(err.Error(), "it stopped by itself") {
		t.Errorf("Run = %v, want that it stopped by itself", err)
	}
}

func TestACancelledRunIsNoError(t *testing.T) {
	p := start(t, func(ctx context.Context, _ battery.Site) error {
		<-ctx.Done()
		return fmt.Errorf("watch: %w", ctx.Err())
	})
	p.stop()
	if err := p.wait(); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

func TestRunRefuses(t *testing.T) {
	never := func(context.Context, battery.Site) error { return nil }
	all := []battery.Battery{
		{Name: "own", Where: battery.Own, Run: never},
		{Name: "shared", Run: never},
		{Name: "objects", Where: battery.Own},
	}
	write := func(content string) string {
		file := filepath.Join(t.TempDir(), "site.json")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for name, tc := range map[string]struct {
		what, site, want string
	}{
		"unknown":      {"dsn", write("{}"), `there is nothing to run called "dsn": there are controllers, node, own`},
		"shared":       {"shared", write("{}"), "it runs with: emerald run controllers"},
		"no process":   {"objects", write("{}"), `there is nothing to run called "objects"`},
		"no settings":  {"own", "/nonexistent", "read the settings of this workload"},
		"bad settings": {"own", write("{"), "decode the settings of this workload"},
		"no knobs":     {"own", write(`{"config": {"a": 1}}`), `settings of battery "own": it has none`},
		"no pod":       {"controllers", write("{}"), "the variable POD_NAME is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("POD_NAME", "")
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			err = host.Run(t.Context(), host.Options{Batteries: all, What: tc.what, SiteFile: tc.site, Kube: &rest.Config{}, Listen: l})
			l.Close()
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Run = %v, want %q in it", err, tc.want)
			}
		})
	}
	if diff := cmp.Diff([]string{"controllers", "node", "own"}, host.Names(all)); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	log := host.Logger(&out, slog.LevelInfo)
	t.Cleanup(klog.ClearLogger)
	log.Info("mine", "battery", "demo")
	klog.Info("chatter")
	klog.ErrorS(errors.New("gone"), "an error")
	klog.Flush()
	var messages []string
	for line := range strings.Lines(out.String()) {
		var m struct{ Msg string }
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q is no JSON: %v", line, err)
		}
		messages = append(messages, m.Msg)
	}
	if diff := cmp.Diff([]string{"mine", "an error"}, messages); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}
