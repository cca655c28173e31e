// Package preflight tells, before anything is started or changed, what keeps a
// host from being a machine of the platform.
//
// It promises to name everything that is missing at once, each with what to do
// about it, and to leave no trace of its tries. It refuses nothing on suspicion:
// what can be tried is tried, not guessed from versions.
//
// Invariant: a check that can't find out says nothing.
package preflight

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/emerald-platform/emerald/platform/dirs"
)

// Needs of a machine with every battery of the platform and a first app.
const (
	MinMemory = 1 << 30 // bytes in the machine
	MinDisk   = 5 << 30 // bytes free for the data directory
	MinInodes = 100_000 // files that can still be made there
	MinFiles  = 4096    // files a process may have open
)

// clockSlack is how much clocks may differ before it is worth a word.
const clockSlack = time.Hour

// Options tell what is going to run on the host.
type Options struct {
	Dirs dirs.Dirs
	// Ports are what the machine is going to listen on.
	Ports []Port
	// Built is when the program was made: no honest clock shows less. Zero
	// skips the check.
	Built time.Time
}

// Port is a port of the host that the machine needs.
type Port struct {
	Network string // "tcp" or "udp"
	Address string // "" for every address of the host
	Number  uint16
	For     string // who needs it, as "the gateway"
}

// Problem is one thing that keeps the host from being a machine.
type Problem struct {
	// What is wrong, with the object and the cause.
	What string
	// Remedy is what to do, a command where there is one.
	Remedy string
}

func (p Problem) String() string { return p.What + ": " + p.Remedy }

// Error holds every problem of a host.
type Error struct{ Problems []Problem }

func (e *Error) Error() string {
	if len(e.Problems) == 1 {
		return "this host can't run the platform: " + e.Problems[0].String()
	}
	var out strings.Builder
	fmt.Fprintf(&out, "this host can't run the platform, for %d reasons:", len(e.Problems))
	for _, p := range e.Problems {
		out.WriteString("\n  - " + p.String())
	}
	return out.String()
}

// Check returns nil when the host can run the machine, and an [*Error] with
// everything that is in the way otherwise. It takes a fraction of a second.
func Check(ctx context.Context, o Options) error {
	return check(ctx, o, hostProbes())
}

// check runs every check with the given eyes.
func check(ctx context.Context, o Options, p probes) error {
	if p.user() != 0 {
		// Nothing else can be found out without being root.
		return &Error{Problems: []Problem{{"it takes root to run containers", "run it again with: sudo emerald up"}}}
	}
	var found []Problem
	for _, c := range []func(context.Context, Options, probes) []Problem{
		checkDirs, checkPrograms, checkKernel, checkCgroups, checkPorts, checkDisk, checkMemory, checkLimits, checkClock,
	} {
		found = append(found, c(ctx, o, p)...)
	}
	if len(found) > 0 {
		return &Error{Problems: found}
	}
	return nil
}
