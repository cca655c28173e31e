package api_test

import (
	"encoding/xml"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	suite        = flag.String("oci-suite", "", "program of the OCI distribution-spec conformance suite, see e2e/oci-conformance")
	suiteVersion = flag.String("oci-suite-version", "unknown", "version of its module, for the report")
	commit       = flag.String("oci-commit", "unknown", "commit under test, for the report")
	report       = flag.String("oci-report", "", "file to write the results to")
)

// sum is what the suite reports, as JUnit counts.
type sum struct {
	Tests    int `xml:"tests,attr"`
	Failures int `xml:"failures,attr"`
	Errors   int `xml:"errors,attr"`
	Skipped  int `xml:"skipped,attr"`
	Disabled int `xml:"disabled,attr"` // not part of that version
}

// TestConformance runs the public suite of the distribution specification
// against the registry. It is run by e2e/oci-conformance/run, which builds the
// suite from its module.
func TestConformance(t *testing.T) {
	if *suite == "" {
		t.Skip("run e2e/oci-conformance/run")
	}
	var table strings.Builder
	fmt.Fprintf(&table, "# OCI distribution-spec conformance\n\n"+
		"The registry against the public suite, module `github.com/opencontainers/distribution-spec/conformance` %s,\n"+
		"on %s at commit %s. Written by `e2e/oci-conformance/run docs/conformance/oci.md`.\n\n"+
		"| specification | tests | passed | failures | errors | skipped | not part of that version |\n|--|--|--|--|--|--|--|\n",
		*suiteVersion, time.Now().UTC().Format(time.DateOnly), *commit)
	for _, version := range []string{"1.1", "1.1+dev"} {
		t.Run(version, func(t *testing.T) {
			s := runSuite(t, version)
			fmt.Fprintf(&table, "| %s | %d | %d | %d | %d | %d | %d |\n", version,
				s.Tests, s.Tests-s.Failures-s.Errors-s.Skipped-s.Disabled, s.Failures, s.Errors, s.Skipped, s.Disabled)
		})
	}
	if *report != "" {
		if err := os.WriteFile(*report, []byte(table.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// runSuite runs the suite for one version of the specification.
func runSuite(t *testing.T, version string) sum {
	t.Helper()
	r := serve(t)
	dir := t.TempDir()
	cmd := exec.Command(*suite)
	cmd.Env = append(os.Environ(),
		"OCI_REGISTRY="+strings.TrimPrefix(r.URL, "http://"), "OCI_TLS=disabled",
		"OCI_USERNAME=test", "OCI_PASSWORD=test", "OCI_VERSION="+version, "OCI_RESULTS_DIR="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("the suite ends with %v:\n%s", err, out)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "junit.xml"))
	if err != nil {
		t.Fatalf("the suite wrote no results: %v\n%s", err, out)
	}
	var s sum
	if err := xml.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", s)
	if s.Tests == 0 || s.Failures+s.Errors+s.Skipped > 0 {
		t.Errorf("results %+v:\n%s", s, out)
	}
	return s
}
