package machine

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/emerald-platform/emerald/platform/dirs"
)

// The machine's process logs to its standard error. Under a service manager
// that is the journal, which bounds itself; elsewhere a file, which the process
// bounds: at most the file and the one before it are kept.

// LogFile is where the machine's process writes when nobody else takes care of
// its output.
func LogFile(d dirs.Dirs) string { return d.InData("log", "emerald.log") }

const (
	// logSize is the size, in bytes, at which a log file is put away.
	logSize = 10 << 20
	// logInterval is how often the size is looked at.
	logInterval = 5 * time.Second
)

// LogHint says, for people, where the machine's log is.
func LogHint(d dirs.Dirs) string {
	if managed(d) {
		return "journalctl -u " + unitName
	}
	return LogFile(d)
}

// LastWords returns the last error in the machine's log, "" when it ended
// without one or has not started to write.
func LastWords(ctx context.Context, d dirs.Dirs) string {
	if managed(d) {
		out, err := exec.CommandContext(ctx, "journalctl", "-u", unitName, "-n", "40", "-o", "cat").Output()
		if err != nil {
			return ""
		}
		return lastError(string(out))
	}
	raw, err := os.ReadFile(LogFile(d))
	if err != nil {
		return ""
	}
	return lastError(string(raw))
}

// lastError looks for what a program that gives up prints, near the end.
func lastError(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	for i := len(lines) - 1; i >= 0 && i >= len(lines)-400; i-- {
		if reason, ok := strings.CutPrefix(lines[i], "emerald: "); ok {
			return reason
		}
		// The trace of every goroutine may follow.
		if strings.HasPrefix(lines[i], "panic: ") || strings.HasPrefix(lines[i], "fatal error: ") {
			return lines[i]
		}
	}
	return lastLogged(lines)
}

// lastLogged returns the last record of an error: upstream's code ends the
// process after it.
func lastLogged(lines []string) string {
	for i := len(lines) - 1; i >= 0 && i >= len(lines)-10; i-- {
		var record struct{ Level, Msg, Err, Error string }
		if json.Unmarshal([]byte(lines[i]), &record) == nil && record.Level == "ERROR" {
			return strings.TrimSuffix(record.Msg+": "+record.Err+record.Error, ": ")
		}
	}
	return ""
}

// boundLog keeps the log file, when the standard error is one, from growing
// without end, until ctx ends. It moves the file away and puts a new one under
// the file descriptors, so that what the Go runtime writes when it dies goes to
// the new one, too.
func boundLog(ctx context.Context, path string, size int64, every time.Duration, log *slog.Logger) error {
	for Pause(ctx, every) == nil {
		var now unix.Stat_t
		if err := unix.Fstat(2, &now); err != nil || now.Mode&unix.S_IFMT != unix.S_IFREG || now.Size < size {
			continue
		}
		var named unix.Stat_t
		if err := unix.Stat(path, &named); err != nil || named.Ino != now.Ino || named.Dev != now.Dev {
			continue // somebody else's file
		}
		if err := nextLog(path); err != nil {
			log.Warn("put the log away", "error", err)
		}
	}
	return nil
}

// nextLog makes standard output and error a new file at path; the old one stays
// beside it.
func nextLog(path string) error {
	if err := putAway(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer f.Close()
	for _, fd := range []int{1, 2} {
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
			return fmt.Errorf("write to the new log: %w", err)
		}
	}
	return nil
}

// putAway keeps the log at path as the one before.
func putAway(path string) error {
	if err := os.Rename(path, path+".1"); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("keep the old log: %w", err)
	}
	return nil
}
