package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ginkgo "github.com/onsi/ginkgo/v2/types"
)

// spec is what the suite says about one test.
func spec(name string, state ginkgo.SpecState, message string) ginkgo.SpecReport {
	return ginkgo.SpecReport{
		LeafNodeType: ginkgo.NodeTypeIt, LeafNodeText: name, State: state,
		Failure: ginkgo.Failure{Message: message},
	}
}

func TestVerdict(t *testing.T) {
	passed := spec("works", ginkgo.SpecStatePassed, "")
	suite := spec("", ginkgo.SpecStateFailed, "no node is ready\nat all")
	suite.LeafNodeType = ginkgo.NodeTypeSynchronizedBeforeSuite
	for _, tt := range []struct {
		reason  string
		specs   []ginkgo.SpecReport
		special []string
		want    string // the error, "" for none
		row     string // of the table
	}{
		{"what was not chosen does not count", []ginkgo.SpecReport{passed, spec("other", ginkgo.SpecStateSkipped, "")}, nil,
			"", "| 1 | 1 | 0 | 0 | 0 |"},
		{"a failure fails the run", []ginkgo.SpecReport{passed, spec("breaks", ginkgo.SpecStateFailed, "no pod\nwas made")}, nil,
			"breaks: no pod", "| 2 | 1 | 1 | 0 | 0 |"},
		{"so does a test that hangs", []ginkgo.SpecReport{passed, spec("hangs", ginkgo.SpecStateTimedout, "A spec timeout occurred")}, nil,
			"hangs: A spec timeout occurred", "| 2 | 1 | 1 | 0 | 0 |"},
		{"one machine is one machine", []ginkgo.SpecReport{passed, spec("spreads", ginkgo.SpecStateFailed, "Conformance requires at least two nodes")}, nil,
			"", "| 2 | 1 | 0 | 1 | 0 |"},
		{"a test that skips itself is counted", []ginkgo.SpecReport{passed, spec("Windows", ginkgo.SpecStateSkipped, "Only supported on Windows")}, nil,
			"", "| 2 | 1 | 0 | 0 | 1 |"},
		{"no test is no success", []ginkgo.SpecReport{spec("other", ginkgo.SpecStateSkipped, "")}, nil,
			"no test passed", "| 0 | 0 | 0 | 0 | 0 |"},
		{"the suite's own failure is one", []ginkgo.SpecReport{passed, suite}, []string{"Suite Timeout Elapsed"},
			"the suite failed: Suite Timeout Elapsed\nthe suite failed: SynchronizedBeforeSuite: no node is ready", "| 1 | 1 | 0 | 0 | 0 |"},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			r := newResults(ginkgo.Report{SpecReports: tt.specs, SpecialSuiteFailureReasons: tt.special})
			got := ""
			if err := r.verdict(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
			if table := string(r.table(options{})); !strings.Contains(table, tt.row+"\n") {
				t.Errorf("the table lacks %q:\n%s", tt.row, table)
			}
		})
	}
}
