package node

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/sysctl"
)

// hostLimits are what a node needs at least of things that the kernel counts
// per user: every component that watches files takes an inotify instance, and
// so do many of the programs in pods.
var hostLimits = map[string]int{
	"fs/inotify/max_user_instances": 8192,
	"fs/inotify/max_user_watches":   524288,
}

// raiseLimits raises those that are lower. What they were comes back when the
// machine is taken down.
func raiseLimits(d dirs.Dirs) error {
	record := sysctl.Record{Path: d.Sysctls()}
	for name, least := range hostLimits {
		path := filepath.Join("/proc/sys", name)
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // this kernel counts nothing
		}
		have, err := strconv.Atoi(strings.TrimSpace(string(raw)))
		if err != nil || have >= least {
			continue
		}
		if err := record.Set(name, strconv.Itoa(least)); err != nil {
			return err
		}
	}
	return nil
}
