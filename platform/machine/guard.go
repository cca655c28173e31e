package machine

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/emerald-platform/emerald/kit/durable"
	"github.com/emerald-platform/emerald/platform/dirs"
)

// restartPause keeps a machine that cannot live from burning the host.
const restartPause = time.Second

// stoppedMark exists while people want the platform down.
func stoppedMark(d dirs.Dirs) string { return d.InData("stopped") }

// Guard starts the machine again whenever it dies while it should run, until
// ctx ends. It is run by the process that outlives the machine, containerd's,
// on hosts without a service manager; the machine in turn starts that one
// again, so each of the two brings back the other.
func Guard(ctx context.Context, d dirs.Dirs, log *slog.Logger) {
	for {
		if err := waitUnlocked(ctx, d); err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(restartPause):
		}
		if PID(d) != 0 {
			continue
		}
		if _, err := os.Stat(stoppedMark(d)); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return
		}
		log.Warn("the machine's process is gone: starting it again")
		if _, err := Spawn(d); err != nil {
			log.Error("start the machine's process", "error", err)
		}
	}
}

// Stopped tells whether people want the platform down, or have removed it.
func Stopped(d dirs.Dirs) bool {
	if _, err := os.Stat(stoppedMark(d)); err == nil {
		return true
	}
	_, err := os.Stat(settingsPath(d))
	return errors.Is(err, fs.ErrNotExist)
}

// markStopped records that the platform shall stay down; clearStopped that it
// shall run.
func markStopped(d dirs.Dirs) error {
	if _, err := os.Stat(d.Data); err != nil {
		return nil // nothing was ever started here
	}
	return durable.WriteFile(stoppedMark(d), []byte("emerald down\n"), 0o600)
}

func clearStopped(d dirs.Dirs) error {
	if err := os.Remove(stoppedMark(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
