package api_test

import (
	"encoding/xml"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var (
	suite   = flag.String("oci-suite", "", "program of the OCI distribution-spec conformance suite to run, see e2e/oci-conformance")
	results = flag.String("oci-results", "", "directory for what the suite writes")
)

// TestConformance runs the public suite of the distribution specification
// against the registry. It is run by e2e/oci-conformance/run, which builds the
// suite from its module.
func TestConformance(t *testing.T) {
	if *suite == "" {
		t.Skip("run e2e/oci-conformance/run")
	}
	for _, version := range []string{"1.1", "1.1+dev"} {
		t.Run(version, func(t *testing.T) {
			r := serve(t)
			dir := t.TempDir()
			if *results != "" {
				dir = filepath.Join(*results, version)
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
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
			var sum struct {
				Tests    int `xml:"tests,attr"`
				Failures int `xml:"failures,attr"`
				Errors   int `xml:"errors,attr"`
				Skipped  int `xml:"skipped,attr"`
				Disabled int `xml:"disabled,attr"`
			}
			if err := xml.Unmarshal(raw, &sum); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d tests: %d failures, %d errors, %d skipped, %d disabled by the version", sum.Tests, sum.Failures, sum.Errors, sum.Skipped, sum.Disabled)
			if sum.Tests == 0 || sum.Failures+sum.Errors+sum.Skipped > 0 {
				t.Errorf("results %+v:\n%s", sum, out)
			}
		})
	}
}
