package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// idle is how long after the last battery became ready memory is looked at.
const idle = time.Minute

// footprint is what some processes occupy, in KiB.
type footprint struct {
	processes                 int
	resident, shared, private float64 // RSS, PSS, and of the RSS what no file backs
}

// memory measures what Emerald occupies when nobody uses it.
func (b *bench) memory(ctx context.Context) (*report, error) {
	m, err := b.bootedMachine(ctx)
	if err != nil {
		return nil, err
	}
	b.say("waiting until a minute after everything was ready")
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(time.Until(m.ready.Add(idle))):
	}
	kinds, err := m.footprints()
	if err != nil {
		return nil, err
	}
	var all footprint
	var rows [][]string
	for _, kind := range slices.SortedFunc(maps.Keys(kinds), func(a, b string) int { return int(kinds[b].shared - kinds[a].shared) }) {
		f := kinds[kind]
		all.add(*f)
		rows = append(rows, []string{kind, strconv.Itoa(f.processes), mebibytes(f.resident), mebibytes(f.private), mebibytes(f.shared)})
	}
	process := kinds[machineProcess]
	if process == nil {
		return nil, errors.New("the machine's process was not found among those of the machine")
	}
	r := new(report)
	const mib = 1024
	for i := range rows {
		if rows[i][0] == machineProcess {
			rows[i] = append(rows[i], r.goal(process.resident <= 400*mib, machineProcess, "RSS "+mebibytes(process.resident), "RSS ≤ 400 MiB"))
		}
	}
	rows = append(rows, []string{"all of Emerald", strconv.Itoa(all.processes), "", mebibytes(all.private), mebibytes(all.shared),
		r.goal(all.shared <= 1024*mib, "all of Emerald", "PSS "+mebibytes(all.shared), "PSS ≤ 1024 MiB")})
	r.table([]string{"a minute after everything was ready", "processes", "RSS", "of it anonymous", "PSS", "goal"}, rows)
	return r, nil
}

// machineProcess is the kind of the process that is the machine.
const machineProcess = "the machine's process"

// footprints returns what the machine's processes occupy, by what they are.
func (m *machine) footprints() (map[string]*footprint, error) {
	pids, err := m.Processes()
	if err != nil {
		return nil, err
	}
	owner, err := m.pid()
	if err != nil {
		return nil, err
	}
	out := map[string]*footprint{}
	for _, pid := range pids {
		f, err := readFootprint(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just ended
		}
		if err != nil {
			return nil, err
		}
		kind := machineProcess
		if pid != owner {
			kind = kindOf(pid)
		}
		if out[kind] == nil {
			out[kind] = new(footprint)
		}
		out[kind].add(f)
	}
	return out, nil
}

func (f *footprint) add(other footprint) {
	f.processes += other.processes
	f.resident += other.resident
	f.shared += other.shared
	f.private += other.private
}

// firstNumber finds the process ID that a lock begins with.
var firstNumber = regexp.MustCompile("[0-9]+")

// pid returns the process that is the machine.
func (m *machine) pid() (int, error) {
	raw, err := os.ReadFile(m.Dirs.InRun("machine.lock"))
	if err != nil {
		return 0, fmt.Errorf("find the machine's process: %w", err)
	}
	pid, err := strconv.Atoi(firstNumber.FindString(string(raw)))
	if err != nil {
		return 0, fmt.Errorf("find the machine's process: its lock says %q", raw)
	}
	return pid, nil
}

// kindOf says what a process is, for people: by the program, and for our own by
// the subcommand.
func kindOf(pid int) string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(raw) == 0 {
		return "others"
	}
	args := strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
	name := filepath.Base(args[0])
	switch {
	case strings.HasPrefix(name, "containerd-shim"):
		return "parents of the pods' processes (containerd-shim)"
	case name == "pause":
		return "first processes of the pods (pause)"
	case name == "emerald" && len(args) > 1:
		words := args[1:]
		if end := slices.IndexFunc(words, func(s string) bool { return strings.HasPrefix(s, "-") }); end >= 0 {
			words = words[:end]
		}
		return strings.TrimSpace("`emerald "+strings.Join(words[:min(len(words), 2)], " ")) + "`"
	}
	return name
}

// readFootprint reads proc_pid_smaps(5)'s sums.
func readFootprint(pid int) (footprint, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return footprint{}, err
	}
	f := footprint{processes: 1}
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		value, _ := strconv.ParseFloat(fields[1], 64)
		switch fields[0] {
		case "Rss:":
			f.resident = value
		case "Pss:":
			f.shared = value
		case "Anonymous:":
			f.private = value
		}
	}
	if f.resident == 0 {
		return f, fs.ErrNotExist // a process that ends has no memory left
	}
	return f, nil
}
