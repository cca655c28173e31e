package picture_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/battery/batterytest"
	"github.com/emerald-platform/emerald/picture"
)

func pass(context.Context, battery.Site) error { return nil }

func proof(feature, claim string) battery.Proof {
	return battery.Proof{Feature: feature, Claim: claim, Check: pass}
}

func named(name string, proofs ...battery.Proof) battery.Battery {
	return battery.Battery{Name: name, Doc: "Is here.", Run: pass, Proofs: proofs}
}

func in(phase v1alpha1.Phase, names ...string) []v1alpha1.BatteryStatus {
	var out []v1alpha1.BatteryStatus
	for _, n := range names {
		out = append(out, v1alpha1.BatteryStatus{Name: n, Phase: phase})
	}
	return out
}

func known(results ...picture.Result) picture.Report { return picture.Report{Results: results} }

func TestRows(t *testing.T) {
	rows := picture.Rows()
	if len(rows) != 43 {
		t.Errorf("the picture has %d rows, want 43", len(rows))
	}
	var numbers []int
	names := map[string]bool{}
	for _, r := range rows {
		numbers = append(numbers, r.Number)
		if r.Feature == "" || names[r.Feature] || len(r.Batteries) == 0 || r.Gets == "" {
			t.Errorf("row %d, %q, is not complete or not unique", r.Number, r.Feature)
		}
		names[r.Feature] = true
	}
	slices.Sort(numbers)
	for i, n := range numbers {
		if n != i+1 {
			t.Fatalf("numbers %v: want 1 to 43", numbers)
		}
	}
}

func TestValidate(t *testing.T) {
	all := []battery.Battery{named("dns", proof("DNS", "Works."), proof("dns", "Works, too."))}
	err := picture.Validate(all)
	want := battery.Defect{Battery: "dns", Field: "Proofs[1].Feature", Problem: `is "dns", which is no row of the picture`}
	if !errors.Is(err, want) {
		t.Errorf("Validate = %v, want %v", err, want)
	}
	if err := picture.Validate(all[:0]); err != nil {
		t.Errorf("Validate of nothing = %v", err)
	}
}

func TestCompute(t *testing.T) {
	dns := named("dns", proof("DNS", "One."), proof("DNS", "Two."))
	one := picture.Result{Feature: "DNS", Battery: "dns", Claim: "One.", Passed: true, Version: "v1"}
	two := picture.Result{Feature: "DNS", Battery: "dns", Claim: "Two.", Passed: true, Version: "v1"}
	old, bad := two, two
	old.Version = "v0"
	bad.Passed, bad.Cause = false, "no answer"
	for name, tc := range map[string]struct {
		feature string
		all     []battery.Battery
		states  []v1alpha1.BatteryStatus
		known   picture.Report
		want    picture.State
		note    string
	}{
		"nobody has it":      {feature: "DNS", want: picture.Missing, note: "to come"},
		"proven":             {"DNS", []battery.Battery{dns}, in("Ready", "dns"), known(one, two), picture.Proven, ""},
		"never verified":     {"DNS", []battery.Battery{dns}, in("Ready", "dns"), known(), picture.Ready, "not proven yet"},
		"one of two":         {"DNS", []battery.Battery{dns}, in("Ready", "dns"), known(one), picture.Ready, "not proven yet"},
		"an older version":   {"DNS", []battery.Battery{dns}, in("Ready", "dns"), known(one, old), picture.Ready, "proven with version v0, not with this one"},
		"failed":             {"DNS", []battery.Battery{dns}, in("Ready", "dns"), known(one, bad), picture.Failed, "no answer"},
		"not installed":      {"DNS", []battery.Battery{dns}, nil, known(one, two), picture.Missing, "dns is not installed"},
		"off":                {"DNS", []battery.Battery{dns}, in("Off", "dns"), known(one, two), picture.Missing, "dns is turned off"},
		"starting":           {"DNS", []battery.Battery{dns}, in("Installing", "dns"), known(one, two), picture.Missing, "dns is installing"},
		"without a proof":    {"DNS", []battery.Battery{named("dns")}, in("Ready", "dns"), known(), picture.Missing, "to come"},
		"a row of its later": {"private DNS", []battery.Battery{dns}, in("Ready", "dns"), known(), picture.Missing, "to come"},
		"a part of four": {
			"CI/CD", []battery.Battery{named("build", proof("CI/CD", "Builds."))}, in("Ready", "build"),
			known(picture.Result{Feature: "CI/CD", Battery: "build", Claim: "Builds.", Passed: true, Version: "v1"}),
			picture.Partly, "to come: forge, pipelines, delivery",
		},
		"another battery's part": {
			"load balancing", []battery.Battery{named("gateway", proof("load balancing", "Spreads."))}, in("Ready", "gateway"),
			known(), picture.Partly, "to come: balancer",
		},
		"the platform's, in part": {
			"cloud hosting", []battery.Battery{named("apps", proof("cloud hosting", "Runs."))}, in("Ready", "apps"),
			known(picture.Result{Feature: "cloud hosting", Battery: "apps", Claim: "Runs.", Passed: true, Version: "v1"}),
			picture.Partly, "to come: a cluster that Emerald did not boot",
		},
		"the platform's, unproven": {"fault domains", []battery.Battery{dns}, in("Ready", "dns"), known(), picture.Missing, "to come"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, e := range picture.Compute(tc.all, tc.states, tc.known, "v1") {
				if e.Feature == tc.feature && (e.State != tc.want || e.Note != tc.note) {
					t.Errorf("%s is %q (%q), want %q (%q)", tc.feature, e.State, e.Note, tc.want, tc.note)
				}
			}
		})
	}
}

func sample() []picture.Entry {
	all := []battery.Battery{
		named("dns", proof("DNS", "One.")), named("certs", proof("TLS certificates", "One.")),
		named("registry", proof("image registry", "One.")), named("build", proof("CI/CD", "One.")),
		named("gateway", proof("API gateways", "One.")),
	}
	states := append(in("Ready", "dns", "certs", "build", "registry"), v1alpha1.BatteryStatus{
		Name: "gateway", Phase: v1alpha1.PhaseStarting, Message: `0/1 copies of Deployment "emerald-gateway/gateway": pod gateway-1: CrashLoopBackOff`,
	})
	return picture.Compute(all, states, known(
		picture.Result{Feature: "DNS", Battery: "dns", Claim: "One.", Passed: true, Version: "v1"},
		picture.Result{Feature: "image registry", Battery: "registry", Claim: "One.", Cause: "push registry.emerald.localhost/a/b:1: connection refused", Version: "v1"},
	), "v1")
}

func TestRender(t *testing.T) {
	for name, look := range map[string]picture.Look{
		"plain": {}, "color": {Color: true}, "narrow": {Width: 40}, "wide": {Width: 200},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := picture.Render(&out, sample(), look); err != nil {
				t.Fatal(err)
			}
			batterytest.Golden(t, "testdata/"+name+".txt", out.Bytes())
			width := max(look.Width, 40)
			if look.Width == 0 {
				width = 80
			}
			for line := range strings.Lines(out.String()) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width && !look.Color {
					t.Errorf("%d characters, %d fit: %s", n, width, line)
				}
			}
			if !look.Color && strings.Contains(out.String(), "\x1b") {
				t.Error("colours without being asked")
			}
		})
	}
}

func TestChoose(t *testing.T) {
	all := []battery.Battery{
		named("registry", proof("image registry", "C.")),
		named("dns", proof("DNS", "A."), proof("DNS", "B."), proof("private DNS", "D.")),
		named("off", proof("logs", "E.")),
	}
	cases := picture.Cases(all, map[string]battery.Site{"dns": {}, "registry": {}})
	for name, tc := range map[string]struct {
		words []string
		want  string
		err   string
	}{
		"all":        {nil, "A. B. D. C.", ""},
		"a feature":  {[]string{"dns"}, "A. B. D.", ""}, // the battery's name, too
		"two words":  {[]string{"image", "registry"}, "C.", ""},
		"quoted":     {[]string{"private DNS", "13"}, "D. C.", ""},
		"a number":   {[]string{"6"}, "A. B.", ""},
		"no such":    {[]string{"dsn"}, "", `there is no proof of "dsn": there are proofs of DNS, private DNS, image registry`},
		"turned off": {[]string{"logs"}, "", `there is no proof of "logs"`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := picture.Choose(cases, tc.words)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want %q", err, tc.err)
				}
				return
			}
			var claims []string
			for _, c := range got {
				claims = append(claims, c.Proof.Claim)
			}
			if err != nil || strings.Join(claims, " ") != tc.want {
				t.Errorf("chose %v, %v; want %s", claims, err, tc.want)
			}
		})
	}
}

func TestProve(t *testing.T) {
	meet := make(chan struct{})
	check := func(f func(context.Context, battery.Site) error) battery.Proof {
		return battery.Proof{Feature: "DNS", Claim: "Something.", Check: f}
	}
	cases := []picture.Case{
		{Battery: "a", Proof: check(func(context.Context, battery.Site) error { meet <- struct{}{}; return nil })},
		{Battery: "b", Proof: check(func(_ context.Context, s battery.Site) error {
			<-meet // only passes when both run at the same time
			if s.Log == nil || s.Domain != "example.org" {
				return errors.New("the site is not whole")
			}
			return nil
		}), Site: battery.Site{Domain: "example.org"}},
		{Battery: "c", Proof: check(func(context.Context, battery.Site) error { return errors.New("no answer") })},
		{Battery: "d", Proof: check(func(context.Context, battery.Site) error { panic("oh") })},
		{Battery: "e", Proof: check(func(ctx context.Context, _ battery.Site) error { <-ctx.Done(); return ctx.Err() })},
	}
	var heard []string
	got := picture.Prove(t.Context(), cases, "v1", 200*time.Millisecond, slog.New(slog.DiscardHandler), func(r picture.Result) {
		heard = append(heard, r.Battery)
	})
	slices.Sort(heard)
	if diff := cmp.Diff([]string{"a", "b", "c", "d", "e"}, heard); diff != "" {
		t.Errorf("heard of (-want +got):\n%s", diff)
	}
	for i := range got {
		got[i].Cause, _, _ = strings.Cut(got[i].Cause, "\n")
	}
	result := func(b string, passed bool, cause string) picture.Result {
		return picture.Result{Feature: "DNS", Battery: b, Claim: "Something.", Passed: passed, Cause: cause, Version: "v1"}
	}
	want := []picture.Result{
		result("a", true, ""), result("b", true, ""), result("c", false, "no answer"),
		result("d", false, "the proof's code panicked: oh"),
		result("e", false, "it did not end within 200ms: context deadline exceeded"),
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(picture.Result{}, "Time", "Seconds")); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	if n := picture.Failures(got); n != 3 {
		t.Errorf("%d failures, want 3", n)
	}
}

func TestSaveAndLoad(t *testing.T) {
	client := fake.NewClientset()
	all := []battery.Battery{named("dns", proof("DNS", "One."), proof("DNS", "Two."))}
	result := func(claim string, passed bool) picture.Result {
		return picture.Result{Feature: "DNS", Battery: "dns", Claim: claim, Passed: passed, Time: time.Unix(1e9, 0).UTC()}
	}
	if got, err := picture.Load(t.Context(), client); err != nil || len(got.Results) != 0 {
		t.Errorf("Load of nothing = %v, %v", got, err)
	}
	for _, results := range [][]picture.Result{
		{result("One.", false), result("Gone.", true)},
		{result("Two.", true)},
		{result("One.", true)},
	} {
		if err := picture.Save(t.Context(), client, all, results); err != nil {
			t.Fatal(err)
		}
	}
	got, err := picture.Load(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	want := picture.Report{Results: []picture.Result{result("One.", true), result("Two.", true)}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}
