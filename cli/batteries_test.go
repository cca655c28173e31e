package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/battery/batterytest"
	"github.com/emerald-platform/emerald/picture"
)

func holdsTrue(context.Context, battery.Site) error { return nil }

func sampleBatteries() []battery.Battery {
	features := map[string]string{
		"apps": "cloud hosting", "registry": "image registry", "gateway": "API gateways", "certs": "TLS certificates",
		"dns": "DNS", "journal": "logs",
	}
	b := func(name, doc string, where battery.Place, needs ...string) battery.Battery {
		return battery.Battery{
			Name: name, Doc: doc, Where: where, Needs: needs, Run: holdsTrue,
			Proofs: []battery.Proof{{Feature: features[name], Claim: "It works.", Check: holdsTrue}},
		}
	}
	return []battery.Battery{
		b("apps", "Apps run.", battery.Controllers, "gateway", "certs"),
		b("registry", "Images are kept.", battery.Own, "certs", "gateway"),
		b("gateway", "Requests find their app.", battery.Own, "certs"),
		b("certs", "Certificates renew.", battery.Controllers),
		b("dns", "Names resolve.", battery.Own),
		b("journal", "Logs are kept.", battery.EveryNode),
	}
}

// run runs a command line without a cluster.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBECONFIG", "/nonexistent")
	t.Setenv("EMERALD_DATA", t.TempDir())
	t.Setenv("EMERALD_RUN", t.TempDir())
	var out bytes.Buffer
	e := &env{batteries: sampleBatteries(), in: strings.NewReader(""), out: &out, err: io.Discard}
	root := newRoot(e)
	root.SetArgs(args)
	root.SetOut(&out)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestBatteriesCommand(t *testing.T) {
	for name, args := range map[string][]string{
		"batteries":         {"batteries"},
		"batteries-json":    {"batteries", "-o", "json"},
		"batteries-tree":    {"batteries", "graph"},
		"batteries-dot":     {"batteries", "graph", "-o", "dot"},
		"batteries-mermaid": {"batteries", "graph", "-o", "mermaid"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := run(t, args...)
			if err != nil {
				t.Fatal(err)
			}
			batterytest.Golden(t, "testdata/"+name+".txt", []byte(out))
		})
	}
	if _, err := run(t, "batteries", "graph", "-o", "png"); err == nil || !strings.Contains(err.Error(), "use dot, mermaid or json") {
		t.Errorf("an unknown format: %v", err)
	}
}

// TestWithoutACluster shows that a cluster that is not there is said to be not
// there, with what to do next, and with the right exit code.
func TestWithoutACluster(t *testing.T) {
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"status"}, 1, "emerald up"},
		{[]string{"verify"}, 2, "emerald up"},
	} {
		_, err := run(t, tc.args...)
		code := 1
		var exit exitError
		if errors.As(err, &exit) {
			code = exit.code
		}
		if err == nil || code != tc.code || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: %v, exit code %d; want %d and %q", tc.args, err, code, tc.code, tc.want)
		}
	}
}

func sampleOverview() *overview {
	now := time.Unix(1e9, 0)
	since := metav1.NewTime(now.Add(-75 * time.Second))
	s := &overview{
		Version: "v0.1.0", Kubernetes: "v1.37.2", Domain: "emerald.localhost",
		Machines: machines([]corev1.Node{
			{ObjectMeta: metav1.ObjectMeta{Name: "two"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
				{Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Message: "Kubelet stopped posting node status."},
			}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "one"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
				{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Message: "kubelet is posting ready status"},
			}}},
		}),
		Refused: `the last good settings stay in force: there is no battery "dsn": there are apps, certs, dns`,
		Batteries: []v1alpha1.BatteryStatus{
			{Name: "apps", Phase: v1alpha1.PhaseWaiting, Message: "waits for gateway", Since: since},
			{Name: "certs", Phase: v1alpha1.PhaseReady}, {Name: "dns", Phase: v1alpha1.PhaseReady},
			{Name: "gateway", Phase: v1alpha1.PhaseStarting, Message: `0/1 copies of Deployment "emerald-gateway/gateway"`, Since: since},
			{Name: "registry", Phase: v1alpha1.PhaseOff}, {Name: "system", Phase: v1alpha1.PhaseReady},
		},
	}
	s.Picture = picture.Compute(sampleBatteries(), s.Batteries, picture.Report{}, s.Version)
	return s
}

func TestStatus(t *testing.T) {
	var out bytes.Buffer
	if err := sampleOverview().print(&out, picture.Look{}, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	batterytest.Golden(t, "testdata/status.txt", out.Bytes())
}

func TestVerifyTable(t *testing.T) {
	v := &verification{env: &env{batteries: sampleBatteries()}}
	result := func(feature, battery, claim, cause string) picture.Result {
		return picture.Result{Feature: feature, Battery: battery, Claim: claim, Passed: cause == "", Cause: cause, Seconds: 1.25}
	}
	results := []picture.Result{
		result("DNS", "dns", "Names of services resolve in a pod.", ""),
		result("DNS", "dns", "A name that does not exist is NXDOMAIN.", "ask 10.43.0.10 for x.y: it answered\nSERVFAIL"),
		result("TLS certificates", "certs", "A certificate is renewed without a restart.", "no certificate after 30s"),
	}
	for name, results := range map[string][]picture.Result{"verify": results, "verify-good": results[:1]} {
		var out bytes.Buffer
		if err := v.print(&out, picture.Look{}, results, 3*time.Second); err != nil {
			t.Fatal(err)
		}
		batterytest.Golden(t, "testdata/"+name+".txt", out.Bytes())
	}
}

func TestProofView(t *testing.T) {
	var out bytes.Buffer
	cases := []picture.Case{
		{Battery: "dns", Proof: battery.Proof{Feature: "DNS", Claim: "One."}},
		{Battery: "dns", Proof: battery.Proof{Feature: "DNS", Claim: "Two."}},
	}
	v := newProofView(&out, cases)
	v.done(picture.Result{Feature: "DNS", Claim: "Two.", Passed: true, Seconds: 0.5})
	v.done(picture.Result{Feature: "DNS", Claim: "One.", Seconds: 1})
	v.end()
	want := "holds: DNS: Two. (0.5s)\nFAILS: DNS: One. (1.0s)\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestAgo(t *testing.T) {
	now := time.Unix(1e9, 0)
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 90 * time.Second: "90s", 5 * time.Minute: "5m", 3 * time.Hour: "3h", 72 * time.Hour: "3d",
	} {
		if got := ago(now, now.Add(-d)); got != want {
			t.Errorf("ago %v = %q, want %q", d, got, want)
		}
	}
	if got := ago(now, time.Time{}); got != "-" {
		t.Errorf("ago never = %q", got)
	}
}
