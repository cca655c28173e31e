package preflight

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emerald-platform/emerald/platform/dirs"
)

func checkDirs(_ context.Context, o Options, _ probes) []Problem {
	var out []Problem
	if len(o.Dirs.Run) > dirs.MaxRun {
		out = append(out, Problem{
			fmt.Sprintf("the path of the run directory %s is too long for sockets", o.Dirs.Run),
			fmt.Sprintf("choose one of at most %d bytes", dirs.MaxRun),
		})
	}
	return out
}

// minNft is the oldest nft that kube-proxy works with: older ones read all
// tables of the host and choke on what they don't know.
var minNft = []int{1, 0, 1}

func checkPrograms(_ context.Context, _ Options, p probes) []Problem {
	version, err := p.nftVersion()
	if err != nil {
		return []Problem{{"the program nft, which sets the rules of the pod network, is missing", "install it: apt-get install nftables"}}
	}
	if older(version, minNft) {
		return []Problem{{"nft " + version + " is too old, the pod network needs 1.0.1", "install a newer one: apt-get install nftables"}}
	}
	return nil
}

// older compares a dotted version with a minimum; what it can't read is not
// older.
func older(version string, min []int) bool {
	parts := strings.Split(strings.TrimPrefix(version, "v"), ".")
	for i, want := range min {
		if i >= len(parts) {
			return want > 0
		}
		have, err := strconv.Atoi(parts[i])
		if err != nil || have > want {
			return false
		}
		if have < want {
			return true
		}
	}
	return false
}

func checkKernel(ctx context.Context, o Options, p probes) []Problem {
	var out []Problem
	for _, ns := range []string{"mnt", "net", "pid", "ipc", "uts", "user", "cgroup"} {
		if !p.exists("/proc/self/ns/" + ns) {
			out = append(out, Problem{"the kernel has no " + ns + " namespaces", "boot a kernel of the distribution's, 5.13 or newer"})
		}
	}
	if !p.exists("/proc/sys/kernel/seccomp") {
		out = append(out, Problem{"the kernel has no seccomp filters", "boot a kernel with CONFIG_SECCOMP_FILTER"})
	}
	if err := p.overlay(o.Dirs.Data); err != nil {
		out = append(out, Problem{
			fmt.Sprintf("the kernel can't stack file systems in %s: %v", o.Dirs.Data, err),
			"load the module: modprobe overlay; or move the data directory to ext4 or xfs",
		})
	}
	for _, feature := range p.network(ctx) {
		out = append(out, Problem{
			fmt.Sprintf("the kernel can't %s: %v", feature.name, feature.err),
			"load the module: modprobe " + feature.module + "; or boot a kernel of the distribution's, 5.13 or newer",
		})
	}
	if forward, err := p.read("/proc/sys/net/ipv4/ip_forward"); err == nil && strings.TrimSpace(forward) != "1" && !p.writable("/proc/sys/net/ipv4/ip_forward") {
		out = append(out, Problem{"the kernel does not forward packets, and that can't be changed here", "set it where it can be: sysctl -w net.ipv4.ip_forward=1"})
	}
	return out
}

// controllers are the cgroup controllers that the kubelet insists on, by the
// version of cgroups.
var controllers = map[bool][]string{
	true:  {"cpu", "cpuset", "memory", "pids"},
	false: {"cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids"},
}

func checkCgroups(_ context.Context, _ Options, p probes) []Problem {
	have, unified, err := p.controllers()
	if err != nil {
		return []Problem{{"there are no cgroups: " + err.Error(), "mount them: mount -t cgroup2 none /sys/fs/cgroup"}}
	}
	var missing []string
	for _, c := range controllers[unified] {
		if !slices.Contains(have, c) {
			missing = append(missing, c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	remedy := "mount them below /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1"
	if slices.Contains(missing, "memory") {
		remedy = "boot with the kernel parameters: cgroup_enable=memory swapaccount=1"
	}
	return []Problem{{"cgroup controllers are missing: " + strings.Join(missing, ", "), remedy}}
}

func checkPorts(_ context.Context, o Options, p probes) []Problem {
	var out []Problem
	for _, port := range o.Ports {
		holder, taken := p.portTaken(port)
		if !taken {
			continue
		}
		address := net.JoinHostPort(port.Address, strconv.Itoa(int(port.Number)))
		what := fmt.Sprintf("port %s (%s) is taken", strings.TrimPrefix(address, ":"), port.Network)
		remedy := "find out who listens: ss -lpn"
		if holder.pid > 0 {
			what += fmt.Sprintf(" by %s (process %d)", holder.name, holder.pid)
			remedy = fmt.Sprintf("stop it: kill %d", holder.pid)
			if holder.unit != "" {
				remedy = "stop it: systemctl disable --now " + holder.unit
			}
		}
		if port.For != "" {
			what += ", " + port.For + " needs it"
		}
		out = append(out, Problem{what, remedy})
	}
	return out
}

func checkDisk(_ context.Context, o Options, p probes) []Problem {
	d, err := p.disk(o.Dirs.Data)
	if err != nil {
		return []Problem{{fmt.Sprintf("the data directory %s can't be used: %v", o.Dirs.Data, err), "make it, or choose another"}}
	}
	var out []Problem
	if d.readOnly {
		out = append(out, Problem{fmt.Sprintf("the disk of %s is read-only", o.Dirs.Data), "look why: dmesg | tail; and mount it anew: mount -o remount,rw " + d.mount})
	}
	if d.noExec {
		out = append(out, Problem{fmt.Sprintf("programs can't run from the disk of %s", o.Dirs.Data), "allow it: mount -o remount,exec " + d.mount})
	}
	if d.bytes < MinDisk {
		out = append(out, Problem{fmt.Sprintf("the disk of %s has %s left, %s are needed", o.Dirs.Data, size(d.bytes), size(MinDisk)), "free some, or move the data directory to another disk"})
	}
	// File systems that make them as needed report none at all.
	if d.inodesTotal > 0 && d.inodes < MinInodes {
		out = append(out, Problem{fmt.Sprintf("the disk of %s has room for %d more files, %d are needed", o.Dirs.Data, d.inodes, MinInodes), "delete some, or move the data directory to another disk"})
	}
	return out
}

func checkMemory(_ context.Context, _ Options, p probes) []Problem {
	total, err := p.memory()
	if err != nil || total >= MinMemory*9/10 { // firmware and kernel keep some
		return nil
	}
	return []Problem{{fmt.Sprintf("the machine has %s of memory, %s are needed", size(total), size(MinMemory)), "give it more"}}
}

func checkLimits(_ context.Context, _ Options, p probes) []Problem {
	files, err := p.openFiles()
	if err != nil || files >= MinFiles {
		return nil
	}
	return []Problem{{fmt.Sprintf("a process may open %d files here, %d are needed", files, MinFiles), "allow more: ulimit -Hn 1048576"}}
}

func checkClock(_ context.Context, o Options, p probes) []Problem {
	now := p.now()
	const remedy = "set it: timedatectl set-ntp true, or: date -s '2026-01-31 12:00'"
	if !o.Built.IsZero() && now.Before(o.Built.Add(-clockSlack)) {
		return []Problem{{fmt.Sprintf("the clock says %s, but this program was made on %s", day(now), day(o.Built)), remedy}}
	}
	if newest, ok := p.newest(o.Dirs.Data); ok && now.Before(newest.Add(-clockSlack)) {
		return []Problem{{fmt.Sprintf("the clock says %s, but the platform's data was written on %s", day(now), day(newest)), remedy}}
	}
	return nil
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// size renders bytes for people.
func size(n uint64) string {
	for _, unit := range []struct {
		name string
		size uint64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= unit.size {
			return strconv.FormatFloat(float64(n)/float64(unit.size), 'f', 1, 64) + " " + unit.name
		}
	}
	return strconv.FormatUint(n, 10) + " B"
}
