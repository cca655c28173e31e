package machine

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// GOGC of a process at each time of its life. Until the API is ready it keeps
// nearly all it allocates, so that collecting finds little and only delays the
// API. While the batteries come up it must not grow a heap full of holes that it
// would keep for good. Later it works, or it idles and allocates so little that
// collecting early costs next to nothing.
const (
	collectStart  = 100
	collectSettle = 15
	collectBusy   = 50
	collectCalm   = 10
)

// startHeap is the size in bytes, garbage included, at which a start is no
// longer a reason to be generous.
const startHeap = 160 << 20

// The process idles when it allocated less than calmRate bytes in each of
// calmRounds rounds in a row.
const (
	memoryRound = 10 * time.Second
	calmRate    = 4 << 20 * int64(memoryRound/time.Second)
	calmRounds  = 3
)

// tendMemory keeps the many components in one heap from holding twice what they
// use, until ctx ends. When the process comes to rest, for the first time after
// its start, it gives back what only the work needed. Started is closed when the
// API is ready. $GOGC wins over all of it.
func tendMemory(ctx context.Context, started <-chan struct{}, log *slog.Logger) error {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	debug.SetGCPercent(collectStart)
	untilStarted(ctx, started, heapSize)
	debug.SetGCPercent(collectSettle)
	tick := time.NewTicker(memoryRound)
	defer tick.Stop()
	rest := calm{last: allocated()}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		switch rest.next(allocated()) {
		case cameToRest:
			debug.SetGCPercent(collectCalm)
			debug.FreeOSMemory()
			if err := releaseProgram(); err != nil {
				log.Debug("give back the program's pages", "error", err)
			}
		case wentToWork:
			debug.SetGCPercent(collectBusy)
		}
	}
}

// untilStarted returns when the start is over, or the heap as large as it may
// become during one.
func untilStarted(ctx context.Context, started <-chan struct{}, heap func() uint64) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for heap() < startHeap {
		select {
		case <-ctx.Done():
			return
		case <-started:
			return
		case <-tick.C:
		}
	}
}

// calm tells rest from work by what is allocated.
type calm struct {
	last   int64 // bytes allocated in all, at the round before
	rounds int   // calm ones in a row
}

// change is what calm sees in a round.
type change int

const (
	nothingNew change = iota
	cameToRest
	wentToWork
)

// next takes the number of bytes allocated in all, one round after the last.
func (c *calm) next(total int64) change {
	grown, before := total-c.last, c.rounds
	c.last = total
	if grown >= calmRate {
		c.rounds = 0
		if before >= calmRounds {
			return wentToWork
		}
		return nothingNew
	}
	c.rounds++
	if c.rounds == calmRounds {
		return cameToRest
	}
	return nothingNew
}

// allocated returns how many bytes the heap has handed out since the start.
func allocated() int64 { return int64(measured("/gc/heap/allocs:bytes")) }

// heapSize returns how many bytes are on the heap, in use or not yet collected.
func heapSize() uint64 { return measured("/memory/classes/heap/objects:bytes") }

// measured reads one of the runtime's metrics.
func measured(name string) uint64 {
	sample := []metrics.Sample{{Name: name}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// releaseProgram takes the program's own code and constants out of memory:
// most of them were needed only to start. Whatever is used again comes back
// from the page cache, page by page.
func releaseProgram() error {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("list this process's memory: %w", err)
	}
	for line := range strings.Lines(string(maps)) {
		start, end, ok := programMapping(strings.TrimSuffix(line, "\n"), self)
		if !ok {
			continue
		}
		// Read-only and backed by the file, so nothing can be lost.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("release %x-%x: %w", start, end, errno)
		}
	}
	return nil
}

// programMapping returns the bounds of a mapping in /proc/PID/maps (see
// proc_pid_maps(5)) when it is a read-only one of the file at path.
func programMapping(line, path string) (start, end uintptr, ok bool) {
	fields := strings.SplitN(line, " ", 6)
	if len(fields) < 6 || strings.TrimLeft(fields[5], " ") != path || len(fields[1]) != 4 || fields[1][1] == 'w' {
		return 0, 0, false
	}
	from, to, _ := strings.Cut(fields[0], "-")
	a, errA := strconv.ParseUint(from, 16, 64)
	b, errB := strconv.ParseUint(to, 16, 64)
	return uintptr(a), uintptr(b), errA == nil && errB == nil && a < b
}
