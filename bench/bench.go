// Command bench measures Emerald beside what people would otherwise use, in one
// run on one machine, and writes what it found into bench/README.md:
//
//	make bench                       everything but the cold build
//	make bench ONLY=start,gateway    these sections
//
// It promises that both sides of a ratio were measured alternately, by the same
// client, and that a figure which was not measured is not printed. It refuses to
// count a proxy's answers before it has seen that they are the right ones.
//
// Invariant: a section of the README is replaced as a whole, together with its
// date, commit and machine, or not at all.
//
// It exits with 1 when a goal was missed, after it has written everything down.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// bench is one run.
type bench struct {
	emerald string // the program under test
	ldflags string // what it was linked with
	gocmd   string
	runs    int // how often starts and deploys are measured
	rounds  int // how often each proxy is measured in each case
	round   time.Duration
	out     io.Writer // progress

	root    string // of the repository
	work    string // scratch, removed at the end
	machine *machine
}

// section is one part of the README.
type section struct {
	name  string
	optIn bool // runs only when it is asked for
	run   func(*bench, context.Context) (*report, error)
}

// sections lists all of them in the order they run: the first three use the same
// machine, which is gone before the proxies are measured.
func sections() []section {
	return []section{
		{name: "start", run: (*bench).start},
		{name: "memory", run: (*bench).memory},
		{name: "deploy", run: (*bench).deploy},
		{name: "gateway", run: (*bench).gateway},
		{name: "size", run: (*bench).size},
		{name: "build", optIn: true, run: (*bench).coldBuild},
	}
}

func main() {
	b := &bench{out: os.Stderr}
	only := flag.String("only", "", "sections to measure, with commas; else all but build")
	backend := flag.String("backend", "", "do nothing but answer HTTP requests on this address")
	load := flag.String("load", "", "do nothing but ask for what this JSON says")
	flag.StringVar(&b.emerald, "emerald", "bin/emerald", "the program under test")
	flag.StringVar(&b.ldflags, "ldflags", "", "the linker's flags that it was built with")
	flag.StringVar(&b.gocmd, "go", "go", "the go command")
	flag.IntVar(&b.runs, "runs", 5, "how often starts and deploys are measured")
	flag.IntVar(&b.rounds, "rounds", 5, "how often each proxy is measured in each case")
	flag.DurationVar(&b.round, "round", 3*time.Second, "how long one round of a proxy takes")
	readme := flag.String("readme", "bench/README.md", "the file to write the tables into")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch {
	case *backend != "":
		fail(serveBackend(ctx, *backend))
		return
	case *load != "":
		fail(runLoad(*load, os.Stdout))
		return
	}
	missed, err := b.measure(ctx, *only, *readme)
	fail(err)
	if len(missed) > 0 {
		fail(fmt.Errorf("goals missed:\n  %s", strings.Join(missed, "\n  ")))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// measure runs the chosen sections and writes each down as soon as it is known.
// It returns the goals that were missed.
func (b *bench) measure(ctx context.Context, only, readme string) (missed []string, err error) {
	chosen, err := choose(only)
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("machines of the lab take root: run it again with sudo")
	}
	if b.emerald, err = filepath.Abs(b.emerald); err != nil {
		return nil, err
	}
	if b.root, err = os.Getwd(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(b.root, "go.mod")); err != nil {
		return nil, errors.New("run it at the repository's root: make bench")
	}
	if b.work, err = os.MkdirTemp("", "emerald-bench-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.leaveMachine(ctx), os.RemoveAll(b.work)) }()

	busy, err := busyElsewhere(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range chosen {
		b.say("%s", s.name)
		where := describeHost(ctx, busy)
		began := time.Now()
		r, err := s.run(b, ctx)
		if err != nil {
			return missed, fmt.Errorf("measure %s: %w", s.name, err)
		}
		if err := writeSection(readme, s.name, where+"\n\n"+r.text()); err != nil {
			return missed, err
		}
		fmt.Fprintf(b.out, "\n%s\n\n", r.text())
		b.say("%s took %.0f s", s.name, time.Since(began).Seconds())
		for _, m := range r.missed {
			missed = append(missed, s.name+": "+m)
		}
	}
	return missed, nil
}

// choose returns the sections that are asked for.
func choose(only string) ([]section, error) {
	var out []section
	var names []string
	want := strings.FieldsFunc(only, func(r rune) bool { return r == ',' || r == ' ' })
	for _, s := range sections() {
		names = append(names, s.name)
		if slices.Contains(want, s.name) || len(want) == 0 && !s.optIn {
			out = append(out, s)
		}
	}
	for _, w := range want {
		if !slices.Contains(names, w) {
			return nil, fmt.Errorf("there is no section %q: choose from %s", w, strings.Join(names, ", "))
		}
	}
	return out, nil
}

// say shows progress.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.out, "%s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}
