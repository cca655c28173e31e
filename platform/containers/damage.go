package containers

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/emerald-platform/emerald/platform/dirs"
)

// A power loss can leave the runtime's databases half-written. What they
// describe are copies: images, which are pulled and imported again, and
// containers, none of which has survived. So they are put away and made anew,
// unless a container still runs.

func stderrFile(d dirs.Dirs) string { return filepath.Join(d.Log(), "containerd.stderr") }

// damage is how a runtime with damaged databases ends: bbolt panics on some
// pages, and refuses others.
var damage = regexp.MustCompile(`go\.etcd\.io/bbolt|invalid database|file size too small|checksum error`)

// lastWords returns what the runtime wrote to its standard error from an offset
// on.
func lastWords(d dirs.Dirs, from int64) string {
	f, err := os.Open(stderrFile(d))
	if err != nil {
		return ""
	}
	defer f.Close()
	// A trace of all goroutines says it at the beginning.
	words, err := io.ReadAll(io.NewSectionReader(f, from, 64<<10))
	if err != nil {
		return ""
	}
	return string(words)
}

// whyEnded returns the line of words that tells why the runtime ended, "" when
// none does.
func whyEnded(words string) string {
	for line := range strings.Lines(words) {
		line = strings.TrimSpace(line)
		if reason, ok := strings.CutPrefix(line, "emerald: "); ok {
			return reason
		}
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") || strings.HasPrefix(line, "unexpected fault") {
			return line
		}
	}
	return ""
}

// errInUse means that containers run whose runtime cannot start.
var errInUse = errors.New("containers still run on it")

// putAway moves the runtime's damaged state aside, so that the next start makes
// a new one.
func putAway(d dirs.Dirs) error {
	sockets, err := os.ReadDir(d.ShimSockets())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for containers: %w", err)
	}
	for _, socket := range sockets {
		// One that nobody listens on was left by a container that was killed.
		conn, err := net.Dial("unix", filepath.Join(d.ShimSockets(), socket.Name()))
		if err != nil {
			continue
		}
		conn.Close()
		return fmt.Errorf("the container runtime's state in %s is damaged, and %w: end them with: emerald down; then run: emerald up", d.ContainerdRoot(), errInUse)
	}
	aside := d.ContainerdRoot() + ".damaged"
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("put the damaged state of the container runtime away: %w", err)
	}
	if err := os.Rename(d.ContainerdRoot(), aside); err != nil {
		return fmt.Errorf("put the damaged state of the container runtime away: %w", err)
	}
	return nil
}
