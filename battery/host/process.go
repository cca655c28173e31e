package host

import (
	"context"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// cgroupLimits are the files that hold the memory limit of this container:
// cgroup v2's and v1's.
var cgroupLimits = []string{"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"}

// collectEarly is the GOGC of the platform's processes: they idle most of the
// time, and memory is what people count.
const collectEarly = 50

// Tune fits the Go runtime to a container: it collects garbage before the
// container's memory limit is reached, and keeps little of it. What GOMEMLIMIT
// and GOGC say wins. It is called once, first thing in the process.
func Tune() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectEarly)
	}
	if limit := memoryLimit("/"); limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit / 10 * 9)
	}
}

// memoryLimit returns the limit in bytes of the cgroup seen below root, 0 when
// there is none.
func memoryLimit(root string) int64 {
	for _, file := range cgroupLimits {
		raw, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			continue
		}
		// "max" in v2, a number near the largest in v1: no limit.
		n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
		if err == nil && n > 0 && n < math.MaxInt64/2 {
			return n
		}
	}
	return 0
}

// Logger returns the logger of a battery's process, which writes JSON lines to
// w, and sends there what the libraries of Kubernetes have to say that is worth
// hearing: errors. It is called once in a process.
func Logger(w io.Writer, level slog.Leveler) *slog.Logger {
	handler := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})
	quiet := louder{Handler: handler, level: slog.LevelWarn}
	klog.SetSlogLogger(slog.New(quiet))
	ctrl.SetLogger(logr.FromSlogHandler(quiet))
	return slog.New(handler)
}

// louder passes on only what is at least of its level.
type louder struct {
	slog.Handler
	level slog.Level
}

// Enabled is part of slog.Handler.
func (l louder) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= l.level && l.Handler.Enabled(ctx, level)
}

// WithAttrs is part of slog.Handler.
func (l louder) WithAttrs(attrs []slog.Attr) slog.Handler {
	return louder{Handler: l.Handler.WithAttrs(attrs), level: l.level}
}

// WithGroup is part of slog.Handler.
func (l louder) WithGroup(name string) slog.Handler {
	return louder{Handler: l.Handler.WithGroup(name), level: l.level}
}
