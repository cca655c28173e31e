package containers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/cmd/containerd/command"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"
	"gopkg.in/natefinch/lumberjack.v2"

	// What the runtime is made of: containerd's built-in plugins less the
	// snapshotters, verifiers and interfaces that nothing here uses.
	_ "github.com/containerd/containerd/api/types/runc/options"
	_ "github.com/containerd/containerd/v2/core/runtime/v2"
	_ "github.com/containerd/containerd/v2/plugins/content/local/plugin"
	_ "github.com/containerd/containerd/v2/plugins/cri"
	_ "github.com/containerd/containerd/v2/plugins/cri/images"
	_ "github.com/containerd/containerd/v2/plugins/cri/runtime"
	_ "github.com/containerd/containerd/v2/plugins/diff/walking/plugin"
	_ "github.com/containerd/containerd/v2/plugins/events"
	_ "github.com/containerd/containerd/v2/plugins/gc"
	_ "github.com/containerd/containerd/v2/plugins/leases"
	_ "github.com/containerd/containerd/v2/plugins/metadata"
	_ "github.com/containerd/containerd/v2/plugins/mount"
	_ "github.com/containerd/containerd/v2/plugins/sandbox"
	_ "github.com/containerd/containerd/v2/plugins/server/grpc"
	_ "github.com/containerd/containerd/v2/plugins/server/ttrpc"
	_ "github.com/containerd/containerd/v2/plugins/services/containers"
	_ "github.com/containerd/containerd/v2/plugins/services/content"
	_ "github.com/containerd/containerd/v2/plugins/services/diff"
	_ "github.com/containerd/containerd/v2/plugins/services/events"
	_ "github.com/containerd/containerd/v2/plugins/services/healthcheck"
	_ "github.com/containerd/containerd/v2/plugins/services/images"
	_ "github.com/containerd/containerd/v2/plugins/services/introspection"
	_ "github.com/containerd/containerd/v2/plugins/services/leases"
	_ "github.com/containerd/containerd/v2/plugins/services/mounts"
	_ "github.com/containerd/containerd/v2/plugins/services/namespaces"
	_ "github.com/containerd/containerd/v2/plugins/services/sandbox"
	_ "github.com/containerd/containerd/v2/plugins/services/snapshots"
	_ "github.com/containerd/containerd/v2/plugins/services/streaming"
	_ "github.com/containerd/containerd/v2/plugins/services/tasks"
	_ "github.com/containerd/containerd/v2/plugins/services/transfer"
	_ "github.com/containerd/containerd/v2/plugins/services/version"
	_ "github.com/containerd/containerd/v2/plugins/services/warning"
	_ "github.com/containerd/containerd/v2/plugins/snapshots/overlay/plugin"
	_ "github.com/containerd/containerd/v2/plugins/streaming"
	_ "github.com/containerd/containerd/v2/plugins/transfer"

	"github.com/emerald-platform/emerald/platform/cgroup"
)

// containerdVersion is what the runtime reports about itself; the module keeps
// it in a variable meant to be filled by the linker.
const containerdVersion = "v2.4.2"

// order is what the machine process asks of the child. It travels in an
// environment variable, so that the child's command line stays containerd's.
type order struct {
	Identity   string `json:"identity"`   // of binary, configuration and network namespace
	Lock       string `json:"lock"`       // file the child keeps locked
	Log        string `json:"log"`        // file the child writes and rotates
	CgroupRoot string `json:"cgroupRoot"` // tree whose leaf "runtime" the child joins
}

const orderVariable = "EMERALD_CONTAINERD"

// holder is what the lock file says about the process that holds the lock.
type holder struct {
	PID      int    `json:"pid"`
	Identity string `json:"identity"`
}

// errTaken means that another runtime of the same machine is running.
var errTaken = errors.New("another container runtime of this machine is running")

// Main is the hidden command `emerald containerd`: it becomes the container
// runtime and returns when that ended. args are containerd's own arguments.
// Only the machine process starts it.
func Main(ctx context.Context, args []string) error {
	var o order
	if err := json.Unmarshal([]byte(os.Getenv(orderVariable)), &o); err != nil {
		return fmt.Errorf("start containerd: it is started by `emerald up` only: %w", err)
	}
	if err := os.Unsetenv(orderVariable); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	if err := (cgroup.Tree{Root: o.CgroupRoot}).Join(cgroup.Runtime, os.Getpid()); err != nil {
		return err
	}
	lock, err := holdLock(o)
	if err != nil {
		return err
	}
	defer lock.Close()

	out := &lumberjack.Logger{Filename: o.Log, MaxSize: 16, MaxBackups: 2}
	defer out.Close()
	log.L.Logger.SetOutput(out)
	version.Version, version.Package = containerdVersion, "github.com/containerd/containerd/v2"
	return command.App().Run(ctx, append([]string{"containerd"}, args...))
}

// holdLock takes the lock that says "the runtime of this machine is alive" and
// writes down who holds it. The kernel lets go of it when the process dies, in
// whatever way; children don't inherit it.
func holdLock(o order) (*os.File, error) {
	f, err := os.OpenFile(o.Lock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the container runtime: %w", err)
	}
	whole := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &whole); err != nil {
		f.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			err = errTaken
		}
		return nil, fmt.Errorf("lock %s: %w", o.Lock, err)
	}
	data, err := json.Marshal(holder{PID: os.Getpid(), Identity: o.Identity})
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(data, 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the container runtime: %w", err)
	}
	return f, nil
}

// readLock returns who runs the machine's container runtime, or nil when
// nobody does. It asks the kernel about the lock and never takes it, so it
// can't get in the way of a runtime that starts at the same moment.
func readLock(path string) (*holder, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for a running container runtime: %w", err)
	}
	defer f.Close()
	whole := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &whole); err != nil {
		return nil, fmt.Errorf("look for a running container runtime: %w", err)
	}
	if whole.Type == unix.F_UNLCK {
		return nil, nil
	}
	var h holder
	if err := json.NewDecoder(f).Decode(&h); err != nil {
		// Taken a moment ago and not written yet.
		return &holder{}, nil
	}
	return &h, nil
}

// canRaise reports whether this process holds CAP_SYS_RESOURCE.
func canRaise() bool {
	var header unix.CapUserHeader
	var data [2]unix.CapUserData
	header.Version = unix.LINUX_CAPABILITY_VERSION_3
	if unix.Capget(&header, &data[0]) != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// childEnvironment keeps what the runtime needs of the machine's environment:
// the search path with the machine's own programs in front, the proxies for
// image pulls, and what tells this machine from others. Of a variable that is
// set twice the last counts, as for every program. The order is always the same.
func childEnvironment(environ []string, programs string) []string {
	kept := map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		switch strings.ToUpper(name) {
		case orderVariable:
		case "PATH", "HOME", "TZ", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "GODEBUG":
			kept[name] = value
		default:
			if strings.HasPrefix(name, "EMERALD_") {
				kept[name] = value
			}
		}
	}
	// A process that the runtime started inherits it and may be the machine
	// again.
	kept["PATH"] = programs + ":" + strings.TrimPrefix(kept["PATH"], programs+":")
	// Where nft is, which the network plugin calls: not every root's shell
	// looks there.
	if !slices.Contains(strings.Split(kept["PATH"], ":"), "/usr/sbin") {
		kept["PATH"] += ":/usr/sbin"
	}
	var out []string
	for name, value := range kept {
		out = append(out, name+"="+value)
	}
	slices.Sort(out)
	return out
}
