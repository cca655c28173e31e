//go:build e2e

// Package conformance runs public conformance suites against a machine of the
// lab, and writes what they report into tables. Without the flags that name a
// suite, which is built from a module of its own, it does nothing.
package conformance

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/emerald-platform/emerald/e2e/fixture"
	"github.com/emerald-platform/emerald/e2e/testimage"
)

var (
	gatewayBin     = flag.String("gateway-bin", "", "directory with the programs that e2e/gateway-conformance/run builds")
	gatewayVersion = flag.String("gateway-suite-version", "unknown", "version of the suite's module, for the report")
	gatewayReport  = flag.String("gateway-report", "", "file to write the results to")
	commit         = flag.String("commit", "unknown", "commit under test, for the report")
)

// formerCore is a test that was in the core of every profile until v1.6.2.
// Since v1.6.3 it is one of the feature GatewayInfrastructure.
const (
	formerCore        = "GatewayInvalidParametersRef"
	formerCoreFeature = "GatewayInfrastructure"
)

// statistics are what the suite counts, in its report's words.
type statistics struct {
	Statistics struct{ Passed, Failed, Skipped int }
	FailedTests, SkippedTests,
	SupportedFeatures, UnsupportedFeatures []string
}

// gatewayReportFile is what the table needs of the suite's ConformanceReport,
// gateway.networking.k8s.io/v1.
type gatewayReportFile struct {
	GatewayAPIVersion, GatewayAPIChannel string
	Profiles                             []struct {
		Name           string
		Core, Extended statistics
	}
}

// TestGateway runs the public suite of the Gateway API on a machine with
// nothing but the platform. It is run by e2e/gateway-conformance/run.
func TestGateway(t *testing.T) {
	if *gatewayBin == "" {
		t.Skip("run e2e/gateway-conformance/run")
	}
	m := fixture.Boot(t)
	loadImages(t, m, gatewayImages())

	report := filepath.Join(t.TempDir(), "report.yaml")
	runGatewaySuite(t, m, 60*time.Minute, "-conformance-profiles=GATEWAY-HTTP,GATEWAY-GRPC", "-report-output="+report,
		"-organization=emerald-platform", "-project=emerald", "-url=https://emerald.dev", "-version="+*commit, "-contact=https://emerald.dev")
	raw, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("the suite wrote no report: %v", err)
	}
	var r gatewayReportFile
	if err := yaml.Unmarshal(raw, &r); err != nil {
		t.Fatalf("read the suite's report: %v", err)
	}
	if len(r.Profiles) != 2 {
		t.Errorf("the suite reports %d profiles, want 2:\n%s", len(r.Profiles), raw)
	}
	for _, p := range r.Profiles {
		if c := p.Core.Statistics; c.Passed == 0 || c.Failed+c.Skipped > 0 || p.Extended.Statistics.Failed > 0 {
			t.Errorf("%s: core %+v, failed %v, skipped %v; beyond the core failed %v",
				p.Name, c, p.Core.FailedTests, p.Core.SkippedTests, p.Extended.FailedTests)
		}
	}
	m.Eventually("the suite's namespaces are gone", 2*time.Minute, func(ctx context.Context) error {
		namespaces, err := m.Client().CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, n := range namespaces.Items {
			if strings.HasPrefix(n.Name, "gateway-conformance-") {
				return fmt.Errorf("namespace %s is %s", n.Name, n.Status.Phase)
			}
		}
		return nil
	})
	former := runGatewaySuite(t, m, 10*time.Minute, "-run-test="+formerCore, "-conformance-profiles=GATEWAY-HTTP", "-supported-features="+formerCoreFeature)
	if *gatewayReport != "" {
		if err := os.WriteFile(*gatewayReport, []byte(gatewayTable(r, former)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// runGatewaySuite runs the suite where the machine's addresses are reachable,
// against the features that the GatewayClass claims unless flags name others,
// and tells whether it passed.
func runGatewaySuite(t *testing.T, m *fixture.Machine, deadline time.Duration, flags ...string) bool {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := m.WriteKubeconfig(kubeconfig); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	cmd := m.Command(ctx, filepath.Join(*gatewayBin, "suite"), append([]string{
		"-test.v", "-test.run=^TestConformance$", fmt.Sprintf("-test.timeout=%s", deadline), "-gateway-class=emerald",
	}, flags...)...)
	cmd.Env = append(cmd.Env, "KUBECONFIG="+kubeconfig)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := m.Run(cmd); err != nil {
		t.Errorf("the suite ends with %v:\n%s", err, out.String())
		return false
	}
	// With a test that it does not know, the suite passes without a word.
	if !strings.Contains(out.String(), "    --- PASS: ") {
		t.Errorf("no test of the suite passed:\n%s", out.String())
		return false
	}
	return true
}

// gatewayImages are those of the suite's servers, under the names that its
// manifests give them.
func gatewayImages() []testimage.Image {
	root := []testimage.File{
		{Path: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/:/\nnobody:x:65534:65534:nobody:/:/\n")},
		{Path: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\nnobody:x:65534:\n")},
		{Path: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	}
	image := func(program, user string, names ...string) testimage.Image {
		files := append(slices.Clone(root), testimage.File{Path: program, Mode: 0o755, From: filepath.Join(*gatewayBin, program)})
		return testimage.Image{
			Names: names, Layers: []testimage.Layer{{Files: files}},
			Config: ocispec.ImageConfig{Entrypoint: []string{"/" + program}, User: user, WorkingDir: "/"},
		}
	}
	const repository = "registry.k8s.io/gateway-api/echo-basic:"
	return []testimage.Image{
		image("echo-basic", "65534:65534", repository+"v1.5.1", repository+"v1.6.0-dev.2", repository+"v1.6.0-dev.3"),
		image("coredns", "", "registry.k8s.io/coredns/coredns:v1.12.2"),
	}
}

// loadImages puts images where the machine's pods find them.
func loadImages(t *testing.T, m *fixture.Machine, images []testimage.Image) {
	t.Helper()
	r, w := io.Pipe()
	go func() { w.CloseWithError(testimage.Write(w, images...)) }()
	names, err := testimage.Load(t.Context(), m.Dirs.ContainerdSocket(), r)
	r.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("images: %s", strings.Join(names, ", "))
}

// gatewayTable is the report as Markdown.
func gatewayTable(r gatewayReportFile, former bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Gateway API conformance\n\n"+
		"The gateway against the public suite, module `sigs.k8s.io/gateway-api/conformance` %s, on %s at commit %s;\n"+
		"definitions %s, channel %s. Written by `e2e/gateway-conformance/run docs/conformance/gateway.md`.\n\n",
		*gatewayVersion, time.Now().UTC().Format(time.DateOnly), *commit, r.GatewayAPIVersion, r.GatewayAPIChannel)
	b.WriteString("| profile | core passed | core failed | core skipped | extended passed | extended failed | extended skipped |\n|--|--|--|--|--|--|--|\n")
	for _, p := range r.Profiles {
		c, e := p.Core.Statistics, p.Extended.Statistics
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d |\n", p.Name, c.Passed, c.Failed, c.Skipped, e.Passed, e.Failed, e.Skipped)
	}
	result := "failed"
	if former {
		result = "passed"
	}
	fmt.Fprintf(&b, "\nUp to v1.6.2 the core of each profile had one test more, `%s`. Since v1.6.3 the suite counts it with the\n"+
		"feature `%s`, which the gateway does not claim: its Services are in its own namespace, and the feature's other\n"+
		"test looks for them in the Gateway's. Run alone, `%s` %s.\n", formerCore, formerCoreFeature, formerCore, result)
	for _, p := range r.Profiles {
		fmt.Fprintf(&b, "\n## %s beyond the core\n\nClaimed and tested: %s.\n\nNot claimed: %s.\n", p.Name,
			list(p.Extended.SupportedFeatures), list(p.Extended.UnsupportedFeatures))
	}
	return b.String()
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
