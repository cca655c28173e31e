package machine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/wipe"
)

// Down stops the machine, its container runtime and every container, and with
// everything also removes all data and whatever else was left on the host. It
// works as well when nothing runs, or only half of it.
func Down(ctx context.Context, d dirs.Dirs, everything bool, log *slog.Logger) error {
	s, err := LoadSettings(d)
	if err != nil && !everything {
		return err // nothing but wiping helps against broken settings
	}
	if err := removeService(ctx, d, everything); err != nil {
		return err
	}
	if err := Stop(ctx, d, haltGrace); err != nil {
		return err
	}
	o := wipe.Options{Dirs: d, CgroupRoot: s.CgroupRoot, Log: log}
	if everything {
		if err := wipe.All(ctx, o); err != nil {
			return fmt.Errorf("remove every trace: %w", err)
		}
		return nil
	}
	if err := wipe.Down(ctx, o); err != nil {
		return fmt.Errorf("stop everything: %w", err)
	}
	// The lock and the socket of a machine that is down say nothing.
	for _, path := range []string{lockPath(d), socketPath(d)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
