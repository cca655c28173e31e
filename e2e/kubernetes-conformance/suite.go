package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	ginkgo "github.com/onsi/ginkgo/v2/types"

	"github.com/emerald-platform/emerald/lab"
)

// suite is what of upstream's suite is run, and how.
type suite struct {
	focus, skip string // regular expressions of tests' names
	parallel    int
	timeout     time.Duration
}

// run runs the suite on the machine, as a person who sits before it would, with
// the machine's own kubectl, and returns what it said. An error means that it
// said nothing: failed tests are results.
func (s suite) run(ctx context.Context, m *lab.Machine, o options, repository string) (*results, error) {
	kubeconfig := filepath.Join(m.Home, "kubeconfig")
	if err := m.WriteKubeconfig(kubeconfig); err != nil {
		return nil, err
	}
	kubectl := filepath.Join(m.Home, "kubectl")
	if err := os.Symlink(o.emerald, kubectl); err != nil {
		return nil, fmt.Errorf("link kubectl: %w", err)
	}
	report := filepath.Join(o.work, "suite.json")
	if err := os.Remove(report); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the last run's results: %w", err)
	}
	log, err := os.Create(filepath.Join(o.work, "suite.log"))
	if err != nil {
		return nil, fmt.Errorf("keep the suite's output: %w", err)
	}
	defer log.Close()

	cmd := m.Command(ctx, o.program("ginkgo"),
		"--procs="+strconv.Itoa(s.parallel), "--timeout="+s.timeout.String(), "--no-color",
		"--focus="+s.focus, "--skip="+s.skip,
		"--output-dir="+o.work, "--json-report="+filepath.Base(report),
		o.program("e2e.test"), "--",
		"--kubeconfig="+kubeconfig, "--kubectl-path="+kubectl, "--provider=skeleton",
		"--disable-log-dump", "--allowed-not-ready-nodes=0", "--ginkgo.no-color")
	// How the suite is told where its images are when they cannot be pulled.
	cmd.Env = append(cmd.Env, "KUBE_TEST_REPO="+repository)
	cmd.Stdout = io.MultiWriter(os.Stdout, log)
	cmd.Stderr = cmd.Stdout
	ran := m.Run(cmd)
	var failed *exec.ExitError
	if ran != nil && !errors.As(ran, &failed) {
		return nil, fmt.Errorf("run the suite: %w", ran)
	}
	raw, err := os.ReadFile(report)
	if err != nil {
		return nil, fmt.Errorf("run the suite: %w", errors.Join(ran, err))
	}
	var reports []ginkgo.Report
	if err := json.Unmarshal(raw, &reports); err != nil || len(reports) != 1 {
		return nil, fmt.Errorf("read the suite's results in %s: %w", report, errors.Join(err, fmt.Errorf("it has %d suites", len(reports))))
	}
	return newResults(reports[0]), nil
}
