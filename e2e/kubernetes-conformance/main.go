// Command kubernetes-conformance runs upstream's conformance tests of
// Kubernetes, unchanged, against the platform on one machine of the lab.
//
// It promises that what it reports is what the suite said: it decides about no
// test, and ends with an error when one failed for another reason than that
// there is only one machine. It leaves no machine behind.
//
// It refuses to pull: the images that the tests run are made here, and served
// by the platform's own registry, which is how clusters without a way to the
// Internet are tested.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/emerald-platform/emerald/lab"
)

// options are the command's flags.
type options struct {
	emerald string // the program under test
	built   string // folder of the suite and of the programs in its images
	source  string // folder of module k8s.io/kubernetes
	work    string // folder of what is kept between runs, and of logs
	mirror  string // of Debian, "" for apt's
	report  string // file to write, "" for none
	suite   suite
	version string // of k8s.io/kubernetes
	commit  string
}

func main() {
	var o options
	flag.StringVar(&o.emerald, "emerald", "", "the program to test")
	flag.StringVar(&o.built, "built", "", "the folder of the suite and the programs of its images")
	flag.StringVar(&o.source, "source", "", "the folder of module k8s.io/kubernetes")
	flag.StringVar(&o.work, "work", "", "the folder of what is kept between runs")
	flag.StringVar(&o.mirror, "mirror", "", "the Debian mirror (default: apt's)")
	flag.StringVar(&o.report, "report", "", "the table to write (default: none)")
	flag.StringVar(&o.version, "version", "unknown", "the suite's version, for the table")
	flag.StringVar(&o.commit, "commit", "unknown", "the commit under test, for the table")
	flag.StringVar(&o.suite.focus, "focus", `\[Conformance\]`, "run tests that match this expression")
	flag.StringVar(&o.suite.skip, "skip", `\[Serial\]|\[Disruptive\]`, "and not this one")
	flag.IntVar(&o.suite.parallel, "parallel", 4, "how many tests run at once")
	flag.DurationVar(&o.suite.timeout, "timeout", 2*time.Hour, "how long the suite may take")
	flag.Parse()

	// The client of the cluster's API complains when nobody takes its logs.
	log.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "kubernetes-conformance: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("make a machine: it takes root: run it with sudo")
	}
	began := time.Now()
	say := func(what string, args ...any) {
		fmt.Printf("%5.0fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(what, args...))
	}
	if o.mirror == "" {
		if o.mirror, err = aptMirror(ctx); err != nil {
			return err
		}
	}
	files := filepath.Join(o.work, "files")
	if err := os.MkdirAll(files, 0o755); err != nil {
		return fmt.Errorf("keep the images' files: %w", err)
	}
	say("making what the images consist of, in %s", files)
	root, err := makeRoot(ctx, files, o.mirror)
	if err != nil {
		return err
	}
	busybox, err := makeBusybox(ctx, files, o.mirror)
	if err != nil {
		return err
	}
	say("booting a machine")

	l, err := lab.New(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(context.WithoutCancel(ctx))) }()
	m, err := l.AddMachine("one")
	if err != nil {
		return err
	}
	up := m.Command(ctx, o.emerald, append([]string{"up"}, m.UpFlags()...)...)
	up.Stdout, up.Stderr = os.Stdout, os.Stderr
	if err := m.Run(up); err != nil {
		return fmt.Errorf("boot the machine: %w", err)
	}
	say("pushing the images to its registry")

	repository, err := serveImages(ctx, m, func(repository string) ([]named, error) { return images(o, root, busybox, repository) })
	if err != nil {
		return err
	}
	say("running the suite with the images in %s", repository)

	results, err := o.suite.run(ctx, m, o, repository)
	if err != nil {
		return err
	}
	say("the suite is done; its output is in %s", filepath.Join(o.work, "suite.log"))
	if o.report != "" {
		if err := os.WriteFile(o.report, results.table(o), 0o644); err != nil {
			return fmt.Errorf("write the table: %w", err)
		}
	}
	return results.verdict()
}
