package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	ginkgo "github.com/onsi/ginkgo/v2/types"
)

// results are what the suite said about the tests that were chosen.
type results struct {
	passed    int
	notPassed []outcome // by name
	suite     []string  // why the suite as a whole failed, if it did for itself
	began     time.Time
	took      time.Duration
}

// outcome is a test that did not pass.
type outcome struct {
	name, reason string
	skipped      bool
	moreNodes    bool
}

// needMoreNodes are what tests say that cannot pass on one machine, however
// good it is.
var needMoreNodes = []string{
	"Conformance requires at least two nodes",
	"Requires at least 2 nodes",
}

func newResults(report ginkgo.Report) *results {
	r := &results{began: report.StartTime, took: report.RunTime, suite: slices.Clone(report.SpecialSuiteFailureReasons)}
	for _, spec := range report.SpecReports {
		switch {
		case spec.LeafNodeType != ginkgo.NodeTypeIt:
			if spec.State.Is(ginkgo.SpecStateFailureStates) {
				r.suite = append(r.suite, fmt.Sprintf("%s: %s", spec.LeafNodeType, firstLine(spec.Failure.Message)))
			}
		case spec.State == ginkgo.SpecStatePassed:
			r.passed++
		// Not chosen: a test that skips itself says why.
		case spec.State == ginkgo.SpecStateSkipped && spec.Failure.Message == "", spec.State == ginkgo.SpecStatePending:
		default:
			reason := firstLine(spec.Failure.Message)
			r.notPassed = append(r.notPassed, outcome{
				name: strings.TrimSpace(spec.FullText()), reason: reason,
				skipped:   spec.State == ginkgo.SpecStateSkipped,
				moreNodes: slices.ContainsFunc(needMoreNodes, func(s string) bool { return strings.Contains(reason, s) }),
			})
		}
	}
	slices.SortFunc(r.notPassed, func(a, b outcome) int { return cmp.Compare(a.name, b.name) })
	return r
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// count returns how many of the tests that did not pass are so.
func (r *results) count(so func(outcome) bool) int {
	return len(slices.Collect(func(yield func(outcome) bool) {
		for _, o := range r.notPassed {
			if so(o) && !yield(o) {
				return
			}
		}
	}))
}

// verdict returns an error unless every test passed that can pass on one
// machine, and there was one.
func (r *results) verdict() error {
	var errs []error
	for _, why := range r.suite {
		errs = append(errs, fmt.Errorf("the suite failed: %s", why))
	}
	for _, o := range r.notPassed {
		if !o.skipped && !o.moreNodes {
			errs = append(errs, fmt.Errorf("%s: %s", o.name, o.reason))
		}
	}
	if r.passed == 0 {
		errs = append(errs, errors.New("no test passed"))
	}
	return errors.Join(errs...)
}

// table is the results for people.
func (r *results) table(o options) []byte {
	var out bytes.Buffer
	failed := r.count(func(o outcome) bool { return !o.skipped && !o.moreNodes })
	nodes := r.count(func(o outcome) bool { return o.moreNodes })
	skipped := r.count(func(o outcome) bool { return o.skipped && !o.moreNodes })
	fmt.Fprintf(&out, `# Kubernetes conformance

One machine against upstream's suite, module `+"`k8s.io/kubernetes/test/e2e`"+` %s, the tests that match `+"`%s`"+`
and not `+"`%s`"+`, %d at a time, on %s at commit %s, in %s.
Written by `+"`make conformance-kubernetes`"+`.

| tests | passed | failed | need more nodes | skipped |
|--|--|--|--|--|
| %d | %d | %d | %d | %d |
`, o.version, o.suite.focus, o.suite.skip, o.suite.parallel, r.began.UTC().Format(time.DateOnly), o.commit, r.took.Round(time.Minute),
		r.passed+len(r.notPassed), r.passed, failed, nodes, skipped)
	for _, why := range r.suite {
		fmt.Fprintf(&out, "\nThe suite failed: %s\n", why)
	}
	if len(r.notPassed) == 0 {
		return out.Bytes()
	}
	fmt.Fprintf(&out, "\n| test that did not pass | what it says |\n|--|--|\n")
	for _, t := range r.notPassed {
		fmt.Fprintf(&out, "| %s | %s |\n", cell(t.name), cell(t.reason))
	}
	return out.Bytes()
}

// cell escapes what would end a cell of a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
