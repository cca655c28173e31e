package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// coldBuild tells what every part and every module adds to a build with an empty
// cache. It takes as long as that build.
func (b *bench) coldBuild(ctx context.Context) (*report, error) {
	g, err := b.loadGraph(ctx)
	if err != nil {
		return nil, err
	}
	weight, link, wall, err := b.timeBuild(ctx, program)
	if err != nil {
		return nil, err
	}
	var total float64
	for _, s := range weight {
		total += s
	}
	parts, err := b.parts(g, weight)
	if err != nil {
		return nil, err
	}
	modules, err := b.modules(g, weight)
	if err != nil {
		return nil, err
	}
	r := new(report)
	r.say("A build with an empty cache, its modules downloaded, takes %.1f minutes on %d cores: %s of processor time for %d packages, and %s to link them.",
		wall.Minutes(), runtime.NumCPU(), processorTime(total), len(weight), processorTime(link))
	const without = "the build without it takes less"
	r.tablePrices("part", without, parts, 0, processorTime)
	r.tablePrices("module", without, modules, 1, processorTime)
	return r, nil
}

// processorTime is seconds of one core.
func processorTime(s float64) string { return fmt.Sprintf("%.1f s", s) }

// action is one step of a build, as `go build -debug-actiongraph` writes it.
type action struct {
	Mode, Package   string
	CmdUser, CmdSys time.Duration
}

// timeBuild builds a package with an empty cache and returns the seconds of the
// processor for each package it is made of and for the final link, and how long
// all took.
func (b *bench) timeBuild(ctx context.Context, target string) (weight map[string]float64, link float64, wall time.Duration, err error) {
	cache := filepath.Join(b.work, "cache")
	defer os.RemoveAll(cache)
	actions := filepath.Join(b.work, "actions.json")
	cmd := exec.CommandContext(ctx, b.gocmd, "build", "-debug-actiongraph="+actions, "-ldflags", b.ldflags, "-o", filepath.Join(b.work, "built"), target)
	cmd.Dir = b.root
	cmd.Env = append(buildEnv(), "GOCACHE="+cache)
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, 0, 0, fmt.Errorf("build %s with an empty cache: %w\n%s", target, err, out)
	}
	wall = time.Since(began)
	raw, err := os.ReadFile(actions)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read the build's steps: %w", err)
	}
	weight, link, err = readActions(raw)
	return weight, link, wall, err
}

// readActions sums the processor time of each package, and that of linking.
func readActions(raw []byte) (weight map[string]float64, link float64, err error) {
	var all []action
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, 0, fmt.Errorf("read the build's steps: %w", err)
	}
	weight = map[string]float64{}
	for _, a := range all {
		switch spent := (a.CmdUser + a.CmdSys).Seconds(); {
		case a.Mode == "build" && a.Package != "":
			weight[a.Package] += spent
		case a.Mode == "link":
			link += spent
		}
	}
	return weight, link, nil
}
