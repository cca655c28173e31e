package machine

import (
	"context"

	"github.com/emerald-platform/emerald/platform/dirs"
)

// Preflight names everything that keeps a machine with these settings from
// running on this host, all at once.
func Preflight(d dirs.Dirs, s Settings) error { return nil }

// Down stops the machine, its container runtime and every container, and with
// wipe removes everything that any of them left on the host.
func Down(ctx context.Context, d dirs.Dirs, wipe bool) error {
	if err := removeService(ctx, d, wipe); err != nil {
		return err
	}
	return Stop(ctx, d, haltGrace)
}
