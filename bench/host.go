package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// describeHost returns the line under which figures are kept: when, what and
// where. Busy is what busyElsewhere found before the run.
func describeHost(ctx context.Context, busy float64) string {
	line := fmt.Sprintf("Measured %s at commit %s, on %s, %s, %d cores, %s.",
		today(), commit(ctx), kernel(), processor(), runtime.NumCPU(), memoryOfHost())
	if busy > 0.1 {
		line += fmt.Sprintf(" **Other work took %.0f %% of the machine when it began: believe the ratios, not the figures.**", 100*busy)
	}
	return line
}

// commit names what is checked out, and says when that is not all.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=10", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	name := strings.TrimSpace(string(out))
	// The README is what this program itself changes.
	changed, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--", ".", ":!bench/README.md").Output()
	if err != nil || len(bytes.TrimSpace(changed)) > 0 {
		name += " with changes"
	}
	return name
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "an unknown kernel"
	}
	return "Linux " + unix.ByteSliceToString(u.Release[:])
}

func processor() string {
	raw, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "an unknown processor"
	}
	for line := range strings.Lines(string(raw)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func memoryOfHost() string {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return "unknown memory"
	}
	return fmt.Sprintf("%.0f GiB", float64(info.Totalram)*float64(info.Unit)/(1<<30))
}

// busyElsewhere returns which part of the machine is at work while this process
// does nothing, 1 is all of it.
func busyElsewhere(ctx context.Context) (float64, error) {
	idle, all, err := processorTimes()
	if err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-time.After(3 * time.Second):
	}
	idleNow, allNow, err := processorTimes()
	if err != nil || allNow <= all {
		return 0, err
	}
	return 1 - (idleNow-idle)/(allNow-all), nil
}

// processorTimes sums the first line of proc_stat(5).
func processorTimes() (idle, all float64, err error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	for i, field := range strings.Fields(line)[1:] {
		n, err := strconv.ParseFloat(field, 64)
		if err != nil || i >= 8 { // guests are counted among the users already
			break
		}
		all += n
		if i == 3 || i == 4 { // idle, and idle until a disk answers
			idle += n
		}
	}
	return idle, all, nil
}

// build compiles a package with the project's flags, in a folder that has a
// go.mod, and returns the path of the program.
func (b *bench) build(ctx context.Context, folder, name, pkg, ldflags string) (string, error) {
	path := filepath.Join(b.root, "bin", "bench", name)
	cmd := exec.CommandContext(ctx, b.gocmd, "build", "-ldflags", ldflags, "-o", path, pkg)
	cmd.Dir = filepath.Join(b.root, folder)
	cmd.Env = buildEnv()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// buildEnv is the one set of flags that shares Go's cache with the rest of the
// project.
func buildEnv() []string {
	return append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false")
}

// moduleVersion returns the version of a module that a folder's go.mod chose.
func (b *bench) moduleVersion(ctx context.Context, folder, module string) string {
	cmd := exec.CommandContext(ctx, b.gocmd, "list", "-m", "-f", "{{.Version}}", module)
	cmd.Dir = filepath.Join(b.root, folder)
	out, err := cmd.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// install makes sure that Debian packages are there.
func (b *bench) install(ctx context.Context, packages ...string) error {
	var missing []string
	for _, p := range packages {
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f=${Status}", p).Output()
		if err != nil || !strings.Contains(string(out), "install ok installed") {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	b.say("installing from Debian: %s", strings.Join(missing, " "))
	for _, args := range [][]string{
		{"update", "-q"},
		append([]string{"install", "-q", "-y", "--no-install-recommends"}, missing...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		// Packages of servers must not start them: policy-rc.d is Debian's way
		// to say so, and RUNLEVEL that of invoke-rc.d without one.
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("install %s: %w\n%s", strings.Join(missing, " "), err, out)
		}
	}
	return nil
}
