package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// ourProxy is the name of our own among the proxies.
const ourProxy = "Emerald"

// connections is how many clients ask at once, each waiting for its answer.
const connections = 64

// candidate is a proxy to measure.
type candidate struct {
	name      string
	program   string
	version   string
	configure configure
}

// gatewayCase is one row of the comparison.
type gatewayCase struct {
	scheme string
	routes int
}

func (c gatewayCase) String() string { return fmt.Sprintf("%s, %d routes", c.scheme, c.routes) }

// figures are what was measured of one proxy in one case, a value per round.
type figures struct {
	rate series // requests per second
	p99  series // milliseconds
	busy series // of the proxy's core, 1 is all of it
	cost series // microseconds of the processor per request
}

// gateway measures our data plane beside other proxies.
func (b *bench) gateway(ctx context.Context) (*report, error) {
	// A cluster that idles beside them would take its share.
	if err := b.leaveMachine(ctx); err != nil {
		return nil, err
	}
	cores, err := splitCores()
	if err != nil {
		return nil, err
	}
	candidates, err := b.candidates(ctx)
	if err != nil {
		return nil, err
	}
	cert, key, err := makeCertificate(b.work)
	if err != nil {
		return nil, err
	}
	r := new(report)
	var versions []string
	for _, c := range candidates {
		if c.version != "" {
			versions = append(versions, c.name+" "+c.version)
		}
	}
	r.say("%d connections, medians of %d alternating rounds of %.0f s, ratios taken within each round. The proxy on core %s, load and backend on %s. %s.",
		connections, b.rounds, b.round.Seconds(), cores.proxy, cores.load, strings.Join(versions, ", "))
	var rows [][]string
	for _, routes := range []int{10, 5000} {
		stage, err := b.setStage(ctx, candidates, routes, cert, key, cores)
		if err != nil {
			return nil, err
		}
		for _, scheme := range []string{"http", "https"} {
			var found map[string]*figures
			if found, err = stage.measure(ctx, scheme); err != nil {
				break
			}
			rows = append(rows, compare(r, gatewayCase{scheme, routes}, candidates, found)...)
		}
		if err = errors.Join(err, stage.close(ctx)); err != nil {
			return nil, err
		}
	}
	r.table([]string{"case", "proxy", "requests/s", "p99", "CPU per request", "core busy", "Emerald's rate ÷ its", "Emerald's p99 ÷ its", "Emerald's CPU ÷ its", "goal"}, rows)
	return r, nil
}

// candidates builds or installs the proxies.
func (b *bench) candidates(ctx context.Context) ([]candidate, error) {
	if err := b.install(ctx, "nginx-light", "haproxy"); err != nil {
		return nil, err
	}
	b.say("building Caddy and our data plane")
	ours, err := b.build(ctx, ".", "gateway", "./batteries/gateway/internal/standalone", "-s -w")
	if err != nil {
		return nil, err
	}
	caddy, err := b.build(ctx, "bench/caddy", "caddy", "github.com/caddyserver/caddy/v2/cmd/caddy", "-s -w")
	if err != nil {
		return nil, err
	}
	out := []candidate{
		{name: ourProxy, program: ours, configure: emeraldProxy},
		{name: "Caddy", program: caddy, configure: caddyProxy, version: b.moduleVersion(ctx, "bench/caddy", "github.com/caddyserver/caddy/v2")},
		{name: "nginx", program: "nginx", configure: nginxProxy, version: debianVersion(ctx, "nginx-light")},
		{name: "haproxy", program: "haproxy", configure: haproxyProxy, version: debianVersion(ctx, "haproxy")},
	}
	for i, c := range out {
		if out[i].program, err = lookProgram(c.program); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// lookProgram finds servers also where Debian puts them.
func lookProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return filepath.Abs(path)
	}
	path := filepath.Join("/usr/sbin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find the program %s: %w", name, err)
	}
	return path, nil
}

func debianVersion(ctx context.Context, name string) string {
	out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f=${Version}", name).Output()
	if err != nil {
		return "of this host"
	}
	return strings.TrimSpace(string(out))
}

// compare returns a case's rows: ours first, then each of the others with the
// ratios and what is asked of them.
func compare(r *report, c gatewayCase, candidates []candidate, found map[string]*figures) [][]string {
	ours := found[ourProxy]
	var rows [][]string
	for i, candidate := range candidates {
		f := found[candidate.name]
		row := []string{"", candidate.name, fmt.Sprintf("%.0f", f.rate.median()), fmt.Sprintf("%.2f ms", f.p99.median()),
			fmt.Sprintf("%.1f µs", f.cost.median()), fmt.Sprintf("%.0f %%", 100*f.busy.median())}
		if i == 0 {
			row[0] = c.String()
		}
		if candidate.name != ourProxy {
			ratio := ours.rate.over(f.rate).median()
			row = append(row, times(ratio), times(ours.p99.over(f.p99).median()), times(ours.cost.over(f.cost).median()))
			if least := leastRatio(candidate.name, c.routes); least > 0 {
				row = append(row, r.goal(ratio >= least, fmt.Sprintf("requests beside %s (%s)", candidate.name, c), times(ratio), fmt.Sprintf("rate ≥ %.1f×", least)))
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// leastRatio is how many times a proxy's rate ours is to be, 0 where nothing is
// asked.
func leastRatio(name string, routes int) float64 {
	switch {
	case name == "Caddy":
		return 1.3
	case name == "nginx" && routes >= 5000:
		return 1
	}
	return 0
}

// interleave returns the order of a round: another one begins each time, so that
// none is always measured right after the same other.
func interleave(candidates []candidate, round int) []candidate {
	at := round % len(candidates)
	return slices.Concat(candidates[at:], candidates[:at])
}
