package machine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/emerald-platform/emerald/kit/durable"
	"github.com/emerald-platform/emerald/platform/dirs"
)

// haltGrace is how long the machine's process may take to end: the API server
// finishes the requests under way.
const haltGrace = 30 * time.Second

// Launch makes the machine run with the program that calls it: it ends the one
// that runs, if any, and starts a new one, by the service manager where there
// is one. It returns as soon as that is under way.
func Launch(ctx context.Context, d dirs.Dirs) error {
	if err := clearStopped(d); err != nil {
		return fmt.Errorf("start the platform: %w", err)
	}
	if managed(d) {
		return launchService(ctx, d)
	}
	if err := Halt(ctx, d, haltGrace); err != nil {
		return fmt.Errorf("take over from the running process: %w", err)
	}
	if err := putAway(LogFile(d)); err != nil {
		return err
	}
	_, err := Spawn(d)
	return err
}

// Same tells whether a machine with settings s need not restart to have want.
func (s Settings) Same(want Settings) bool {
	want.DataVersion = s.DataVersion
	return s == want
}

// Pause waits for d or until ctx ends, whose error it then returns.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

const (
	unitName = "emerald.service"
	unitPath = "/etc/systemd/system/" + unitName
)

// managed tells whether systemd looks after the machine: it runs here, and
// these are the host's own directories, not those of a machine in a lab.
func managed(d dirs.Dirs) bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil && d == dirs.Default
}

// unit keeps containers alive when the service stops (KillMode=process) and
// leaves their control groups to the kubelet (Delegate).
func unit(self string) string {
	return `[Unit]
Description=Emerald: Kubernetes, batteries included
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=` + self + ` ` + Command + `
Environment=EMERALD_SERVICE=1
Restart=always
RestartSec=1s
KillMode=process
Delegate=yes
OOMScoreAdjust=-999
LimitNOFILE=1048576
TasksMax=infinity
TimeoutStopSec=60s

[Install]
WantedBy=multi-user.target
`
}

func launchService(ctx context.Context, d dirs.Dirs) error {
	self, err := executable()
	if err != nil {
		return err
	}
	if err := durable.WriteFile(unitPath, []byte(unit(self)), 0o644); err != nil {
		return fmt.Errorf("write the service %s: %w", unitPath, err)
	}
	for _, args := range [][]string{{"daemon-reload"}, {"enable", unitName}, {"restart", unitName}} {
		if err := systemctl(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// removeService stops systemd from starting the machine again.
func removeService(ctx context.Context, d dirs.Dirs, forget bool) error {
	if _, err := os.Stat(unitPath); !managed(d) || err != nil {
		return nil
	}
	if err := systemctl(ctx, "disable", "--now", unitName); err != nil {
		return err
	}
	if !forget {
		return nil
	}
	if err := os.Remove(unitPath); err != nil {
		return fmt.Errorf("remove the service: %w", err)
	}
	return systemctl(ctx, "daemon-reload")
}

func systemctl(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
