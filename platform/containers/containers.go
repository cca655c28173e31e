// Package containers runs the container runtime: upstream containerd, from the
// same program, as a child process of the machine, with runc and the other
// programs it calls carried inside.
//
// It promises that containers outlive the machine process and the runtime: a
// machine process that starts finds the running runtime and adopts it, or
// replaces it when the program, its configuration or the network namespace
// changed, and the containers don't notice. It refuses to run two runtimes on
// the same directories.
//
// Invariant: whoever holds the lock file of [dirs.Dirs.ContainerdLock] is the
// one runtime of this machine.
//
//	none ──spawn──▶ starting ──CRI answers──▶ running ──dies──▶ none
//	                   ▲                         │
//	                   └──────── adopt ◀─────────┘ machine process dies
package containers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/emerald-platform/emerald/kit/durable"
	"github.com/emerald-platform/emerald/platform/cgroup"
	"github.com/emerald-platform/emerald/platform/dirs"
)

// Namespace is where the runtime keeps what belongs to Kubernetes.
const Namespace = "k8s.io"

// startTimeout bounds one start of the runtime. A start takes well under a
// second, and longer only when thousands of images must be read from a slow disk.
const startTimeout = 60 * time.Second

// stopTimeout is how long the runtime may take to finish what it does.
const stopTimeout = 10 * time.Second

// Options tell where and how the runtime runs.
type Options struct {
	Dirs dirs.Dirs
	// CgroupRoot is the machine's [cgroup.Tree]; the runtime joins its leaf
	// [cgroup.Runtime]. Empty means [cgroup.DefaultRoot].
	CgroupRoot string
	// Executable is the program that answers to `containerd` as its first
	// argument with [Main]. Empty means the running one.
	Executable string
	Log        *slog.Logger
}

// Runtime is the machine's running container runtime. Its methods may be
// called concurrently.
type Runtime struct {
	// Socket is the path of the socket that serves containerd's API and CRI.
	Socket string

	options Options
	client  *containerd.Client

	mu      sync.Mutex
	process *process
}

// Start brings up the machine's container runtime, or adopts the one that
// runs, and returns as soon as CRI answers. The runtime does not end with ctx,
// nor with this process.
func Start(ctx context.Context, o Options) (*Runtime, error) {
	if o.CgroupRoot == "" {
		o.CgroupRoot = cgroup.DefaultRoot
	}
	r := &Runtime{Socket: o.Dirs.ContainerdSocket(), options: o}
	if len(o.Dirs.Run) > dirs.MaxRun {
		return nil, fmt.Errorf("start the container runtime in %q: a path of sockets may have %d bytes at most; choose a shorter run directory", o.Dirs.Run, dirs.MaxRun)
	}
	if err := r.start(ctx); err != nil {
		return nil, err
	}
	// The connection is lazy and reconnects by itself, so one client serves
	// for the life of the process, whatever happens to the runtime.
	client, err := containerd.New(r.Socket, containerd.WithDefaultNamespace(Namespace), containerd.WithTimeout(startTimeout))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	r.client = client
	return r, nil
}

// Client returns the connection to containerd's own API, with the namespace of
// Kubernetes as its default. It belongs to the Runtime: don't close it.
func (r *Runtime) Client() *containerd.Client { return r.client }

// start makes r.process a running, answering runtime.
func (r *Runtime) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("containerd took too long to start"))
	defer cancel()
	d := r.options.Dirs
	for dir, mode := range map[string]os.FileMode{
		d.Containerd(): 0o711, d.RegistryHosts(): 0o755, d.CNIConfig(): 0o755, d.Log(): 0o755,
		d.Run: 0o711, d.ShimSockets(): 0o711,
	} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return fmt.Errorf("prepare the container runtime: %w", err)
		}
	}
	if err := unpack(d); err != nil {
		return err
	}
	pauseImage, err := PauseImage()
	if err != nil {
		return err
	}
	config, err := renderConfig(d, pauseImage, canRaise())
	if err != nil {
		return err
	}
	exe := r.options.Executable
	if exe == "" {
		// Not by its path: that may hold a newer program by now, or none.
		exe = "/proc/self/exe"
	}
	env := childEnvironment(os.Environ(), d.Bin())
	identity, err := identify(exe, config, env)
	if err != nil {
		return err
	}

	p, err := r.adopt(ctx, identity)
	if err != nil {
		return err
	}
	if p == nil {
		if err := durable.WriteFile(filepath.Join(d.Containerd(), "config.toml"), config, 0o600); err != nil {
			return fmt.Errorf("write containerd's configuration: %w", err)
		}
		if p, err = r.spawnAnswering(ctx, exe, identity, env); err != nil {
			return err
		}
	} else if err := r.await(ctx, p); err != nil {
		return err
	}
	r.mu.Lock()
	r.process = p
	r.mu.Unlock()
	return nil
}

// identify names what a running runtime was made from: the program (by inode,
// size and time, so that starting needs no read of the whole file), its
// configuration and environment, and the network namespace in which pods on the
// host network would find themselves.
func identify(exe string, config []byte, env []string) (string, error) {
	program, err := os.Stat(exe)
	if err != nil {
		return "", fmt.Errorf("identify %s: %w", exe, err)
	}
	netns, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return "", fmt.Errorf("identify the network namespace: %w", err)
	}
	// The search path does not count: containerd adds to it, and a machine that
	// the runtime brought back would take that for a change.
	env = slices.DeleteFunc(slices.Clone(env), func(kv string) bool { return strings.HasPrefix(kv, "PATH=") })
	h := sha256.New()
	fmt.Fprintf(h, "%d %d %d\n%s\n%s\n%q\n", program.Sys().(*syscall.Stat_t).Ino, program.Size(), program.ModTime().UnixNano(), netns, containerdVersion, env)
	h.Write(config)
	return hex.EncodeToString(h.Sum(nil)), nil
}

// adopt returns the runtime that runs already, or nil when there is none. One
// of another identity is ended first.
func (r *Runtime) adopt(ctx context.Context, identity string) (*process, error) {
	h, err := readLock(r.options.Dirs.ContainerdLock())
	for err == nil && h != nil && h.PID == 0 {
		// It holds the lock and is about to write who it is.
		if err = pause(ctx); err == nil {
			h, err = readLock(r.options.Dirs.ContainerdLock())
		}
	}
	if err != nil || h == nil {
		return nil, err
	}
	p, err := watchProcess(h.PID)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, nil
	}
	if h.Identity == identity {
		r.options.Log.Info("container runtime adopted", "pid", h.PID)
		return p, nil
	}
	r.options.Log.Info("container runtime changed, restarting it", "pid", h.PID)
	return nil, p.end(ctx, stopTimeout)
}

// spawnAnswering starts a new runtime and returns when it answers. State that
// keeps it from starting is put away, once.
func (r *Runtime) spawnAnswering(ctx context.Context, exe, identity string, env []string) (*process, error) {
	d := r.options.Dirs
	for healed := false; ; healed = true {
		p, from, err := r.spawn(exe, identity, env)
		if err != nil {
			return nil, err
		}
		if err = r.await(ctx, p); err == nil {
			return p, nil
		}
		words := lastWords(d, from)
		if why := whyEnded(words); why != "" {
			err = fmt.Errorf("%w: %s", err, why)
		}
		if healed || ctx.Err() != nil || !damage.MatchString(words) {
			return nil, err
		}
		if err := putAway(d); err != nil {
			return nil, err
		}
		r.options.Log.Warn("the container runtime's state is damaged: it is made anew", "error", err)
	}
}

// spawn starts a new runtime as a child in a session of its own. It also
// returns where in the file of its standard error its words begin.
func (r *Runtime) spawn(exe, identity string, env []string) (*process, int64, error) {
	d := r.options.Dirs
	if err := (cgroup.Tree{Root: r.options.CgroupRoot}).Create(cgroup.Runtime); err != nil {
		return nil, 0, err
	}
	task, err := json.Marshal(order{
		Identity:   identity,
		Lock:       d.ContainerdLock(),
		Log:        filepath.Join(d.Log(), "containerd.log"),
		CgroupRoot: r.options.CgroupRoot,
	})
	if err != nil {
		return nil, 0, fmt.Errorf("describe containerd's task: %w", err)
	}
	// What comes before logging is set up, or after a crash: rare and short.
	stderr, err := os.OpenFile(stderrFile(d), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("start containerd: %w", err)
	}
	defer stderr.Close()
	st, err := stderr.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("start containerd: %w", err)
	}
	from := st.Size()
	if from > 1<<20 {
		if err := stderr.Truncate(0); err != nil {
			return nil, 0, fmt.Errorf("start containerd: %w", err)
		}
		from = 0
	}
	cmd := exec.Command(exe, "containerd", "--config", filepath.Join(d.Containerd(), "config.toml"))
	cmd.Args[0] = "emerald"
	cmd.Dir = "/"
	cmd.Env = append(slices.Clone(env), orderVariable+"="+string(task))
	cmd.Stdout, cmd.Stderr = stderr, stderr
	// A session of its own: a signal to the machine's terminal or process
	// group must not end the containers.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, 0, fmt.Errorf("start containerd: %w", err)
	}
	r.options.Log.Info("container runtime started", "pid", cmd.Process.Pid)
	return watchChild(cmd), from, nil
}

// await returns when the runtime p answers CRI requests.
func (r *Runtime) await(ctx context.Context, p *process) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-p.done:
			cancel(fmt.Errorf("containerd ended while starting; see %s", filepath.Join(r.options.Dirs.Log(), "containerd.log")))
		case <-ctx.Done():
		}
	}()
	// grpc waits a second after a refused connection: knock first.
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "unix", r.Socket)
		if err == nil {
			conn.Close()
			break
		}
		if pause(ctx) != nil {
			return fmt.Errorf("wait for containerd on %s: %w", r.Socket, context.Cause(ctx))
		}
	}
	conn, err := grpc.NewClient("unix://"+r.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to containerd: %w", err)
	}
	defer conn.Close()
	for {
		_, err := cri.NewRuntimeServiceClient(conn).Version(ctx, &cri.VersionRequest{})
		if err == nil {
			return nil
		}
		if pause(ctx) != nil {
			return fmt.Errorf("wait for containerd to serve CRI: %w: %w", context.Cause(ctx), err)
		}
	}
}

// pause waits a moment between two tries of something that gives no sign when
// it becomes possible.
func pause(ctx context.Context) error {
	t := time.NewTimer(3 * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// Watch starts the runtime again whenever it dies. It returns nil when ctx
// ends and leaves the runtime and its containers running.
func (r *Runtime) Watch(ctx context.Context) error {
	// Soon at first: while the runtime is away, nothing else on the machine can
	// bring back the machine process.
	const healthy, shortest, longest = 10 * time.Second, 100 * time.Millisecond, 15 * time.Second
	var delay time.Duration
	for {
		r.mu.Lock()
		p := r.process
		r.mu.Unlock()
		began := time.Now()
		select {
		case <-ctx.Done():
			return nil
		case <-p.done:
		}
		if time.Since(began) > healthy {
			delay = 0
		}
		r.options.Log.Error("container runtime died, starting it again", "pid", p.pid, "delay", delay)
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(delay):
			}
			delay = min(max(2*delay, shortest), longest)
			err := r.start(ctx)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return nil
			}
			r.options.Log.Error("container runtime did not start", "error", err, "retry", delay)
		}
	}
}

// Close drops this process's connection to the runtime, which goes on running.
func (r *Runtime) Close() error { return r.client.Close() }

// Running reports whether the container runtime of the machine with these
// directories runs.
func Running(d dirs.Dirs) (bool, error) {
	h, err := readLock(d.ContainerdLock())
	return h != nil, err
}

// Stop ends the container runtime of the machine with these directories, if it
// runs, and leaves its containers alone.
func Stop(ctx context.Context, d dirs.Dirs) error {
	h, err := readLock(d.ContainerdLock())
	if err != nil || h == nil || h.PID == 0 {
		return err
	}
	p, err := watchProcess(h.PID)
	if err != nil || p == nil {
		return err
	}
	return p.end(ctx, stopTimeout)
}
