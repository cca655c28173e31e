// Package daemon is BuildKit as a library, put together for a pod: its solver,
// its own overlay snapshotter and content store, the runc worker, the built-in
// Dockerfile frontend, and nothing that needs a container runtime outside.
//
// It promises that a build step sees the machine's certificate authorities and
// proxies without anything of them staying in an image, and that a base image
// which cannot be pulled is asked of [Bases] before the build gives up.
//
// It refuses builds that ask for the pod's own privileges (insecure steps,
// devices) and every caller that [Options.Authorize] does not know: build
// steps share the pod's network and could reach the port otherwise.
//
// Invariant: all state is below Options.Root, and one process at a time uses
// it.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	ctdsnapshot "github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"github.com/gofrs/flock"
	"github.com/moby/buildkit/cache/remotecache"
	inlineremotecache "github.com/moby/buildkit/cache/remotecache/inline"
	localremotecache "github.com/moby/buildkit/cache/remotecache/local"
	registryremotecache "github.com/moby/buildkit/cache/remotecache/registry"
	buildkit "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/executor/oci"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/frontend/gateway"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/util/db/boltutil"
	"github.com/moby/buildkit/util/network/netproviders"
	"github.com/moby/buildkit/version"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	"github.com/moby/buildkit/worker/runc"
	"github.com/moby/sys/userns"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// Options says where and how a daemon works. It is not changed after [New].
type Options struct {
	// Root is an absolute directory for all state: layers, caches, databases.
	Root string

	// Runc is the path of the runc binary.
	Runc string

	// Hosts says how to reach the registry of an image name.
	Hosts docker.RegistryHosts

	// Authorize tells whether the bearer of a token may build; a nil error
	// means yes. Nil lets everyone in: for tests on a private socket.
	Authorize func(ctx context.Context, token string) error

	// Surroundings returns what every build step is given. It is called for
	// every step, from many goroutines, and must be quick. Nil gives nothing.
	Surroundings func() Surroundings

	// Bases makes base images that no registry has. Nil makes none.
	Bases Bases

	// CacheSize bounds the bytes that layers and caches take; 0 leaves it to
	// BuildKit's own share of the disk. KeepFree is how many bytes of the disk
	// stay free.
	CacheSize, KeepFree int64

	// Parallel bounds how many steps run at once; 0 means no bound.
	Parallel int

	// Log is never nil.
	Log *slog.Logger
}

// Daemon is a BuildKit that is ready to serve. It is safe for concurrent use.
type Daemon struct {
	opts       Options
	controller *control.Controller
	lock       *flock.Flock
	inside     *pipeListener
}

// ErrInUse says that another process works in the same Root.
var ErrInUse = errors.New("another builder uses this directory")

const lockFile = "lock"

// New opens or creates the state below opts.Root. The caller ends it with
// Serve, or with Close when it never serves.
func New(ctx context.Context, opts Options) (*Daemon, error) {
	if err := os.MkdirAll(opts.Root, 0o700); err != nil {
		return nil, fmt.Errorf("create the build directory: %w", err)
	}
	lock := flock.New(filepath.Join(opts.Root, lockFile))
	// The process before this one may need a moment to end, as in a rollout.
	if ok, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil || !ok {
		return nil, fmt.Errorf("lock %q: %w", opts.Root, errors.Join(ErrInUse, err))
	}
	d := &Daemon{opts: opts, lock: lock, inside: newPipeListener()}
	if err := d.countOpening(); err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	var err error
	if d.controller, err = d.open(ctx); damaged(err) {
		err = fmt.Errorf("%w: %w", ErrDamaged, errors.Join(err, d.discard()))
	}
	// It lived to tell, well or not.
	if removeErr := os.Remove(d.openingFile()); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
		err = errors.Join(err, fmt.Errorf("open the build directory: %w", removeErr))
	}
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return d, nil
}

// maxOpenings is how many processes in a row may die while they open the state:
// bbolt panics, where nobody can recover, on some damage. One may be killed at
// that moment by chance.
const maxOpenings = 2

func (d *Daemon) openingFile() string { return filepath.Join(d.opts.Root, "opening") }

// countOpening notes that the state is being opened, and throws it away when too
// many have died over it.
func (d *Daemon) countOpening() error {
	marks, err := os.ReadFile(d.openingFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open the build directory: %w", err)
	}
	if len(marks) >= maxOpenings {
		d.opts.Log.Warn("the builder died whenever it opened its state: it is thrown away", "times", len(marks))
		if err := d.discard(); err != nil {
			return fmt.Errorf("throw the damaged state of the builder away: %w", err)
		}
		marks = nil
	}
	if err := os.WriteFile(d.openingFile(), append(marks, '+'), 0o600); err != nil {
		return fmt.Errorf("open the build directory: %w", err)
	}
	return nil
}

// ErrDamaged says that the state was unreadable, as after a power loss, and was
// thrown away: the next process starts anew, with an empty cache. This one
// cannot, as it may hold some of the databases open.
var ErrDamaged = errors.New("the builder's state was damaged and is thrown away; it starts anew")

// damaged tells whether an error comes from a database that is not whole.
func damaged(err error) bool {
	for _, cause := range []error{bolterrors.ErrInvalid, bolterrors.ErrChecksum, bolterrors.ErrVersionMismatch, bolterrors.ErrInvalidMapping} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

// discard removes everything below the root but the lock.
func (d *Daemon) discard() error {
	entries, err := os.ReadDir(d.opts.Root)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Name() != lockFile {
			errs = append(errs, os.RemoveAll(filepath.Join(d.opts.Root, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// open puts BuildKit's parts together the way its own daemon does.
func (d *Daemon) open(ctx context.Context) (*control.Controller, error) {
	sessions, err := session.NewManager()
	if err != nil {
		return nil, fmt.Errorf("start the session manager: %w", err)
	}
	w, err := d.newWorker(ctx)
	if err != nil {
		return nil, err
	}
	workers := &worker.Controller{}
	if err := workers.Add(w); err != nil {
		return nil, fmt.Errorf("add the worker: %w", err)
	}
	images, err := gateway.NewGatewayFrontend(workers.Infos(), nil)
	if err != nil {
		return nil, fmt.Errorf("start the gateway frontend: %w", err)
	}
	cacheStorage, err := bboltcachestorage.NewStore(filepath.Join(d.opts.Root, "cache.db"))
	if err != nil {
		return nil, fmt.Errorf("open the build cache: %w", err)
	}
	history, err := boltutil.SafeOpen(filepath.Join(d.opts.Root, "history.db"), 0o600, &bolt.Options{
		FreelistType: bolt.FreelistMapType, NoFreelistSync: true,
	})
	if err != nil {
		return nil, fmt.Errorf("open the build history: %w", err)
	}
	entries := int64(50)
	c, err := control.NewController(control.Opt{
		SessionManager:   sessions,
		WorkerController: workers,
		Frontends: map[string]frontend.Frontend{
			"dockerfile.v0": forwarder.NewGatewayForwarder(workers.Infos(), buildDockerfile),
			"gateway.v0":    images,
		},
		ResolveCacheExporterFuncs: map[string]remotecache.ResolveCacheExporterFunc{
			"registry": registryremotecache.ResolveCacheExporterFunc(sessions, d.opts.Hosts),
			"local":    localremotecache.ResolveCacheExporterFunc(sessions),
			"inline":   inlineremotecache.ResolveCacheExporterFunc(),
		},
		ResolveCacheImporterFuncs: map[string]remotecache.ResolveCacheImporterFunc{
			"registry": registryremotecache.ResolveCacheImporterFunc(sessions, w.ContentStore(), d.opts.Hosts),
			"local":    localremotecache.ResolveCacheImporterFunc(sessions),
		},
		CacheManager:   solver.NewCacheManager(ctx, "local", cacheStorage, worker.NewCacheResultStorage(workers)),
		HistoryDB:      history,
		CacheStore:     cacheStorage,
		LeaseManager:   w.LeaseManager(),
		ContentStore:   w.ContentStore(),
		GarbageCollect: w.GarbageCollect,
		GracefulStop:   ctx.Done(),
		HistoryConfig:  &config.HistoryConfig{MaxAge: config.Duration{Duration: 48 * time.Hour}, MaxEntries: &entries},
	})
	if err != nil {
		return nil, fmt.Errorf("start BuildKit: %w", err)
	}
	return c, nil
}

// newWorker makes the worker that runs steps with runc.
func (d *Daemon) newWorker(ctx context.Context) (worker.Worker, error) {
	snapshots := runc.SnapshotterFactory{
		Name: "overlayfs",
		New: func(root string) (ctdsnapshot.Snapshotter, error) {
			return overlay.NewSnapshotter(root, overlay.AsynchronousRemove)
		},
	}
	if err := overlayutils.Supported(d.opts.Root); err != nil {
		d.opts.Log.Warn("overlayfs cannot be used here: builds copy whole layers and are slow", "cause", err)
		snapshots = runc.SnapshotterFactory{Name: "native", New: native.NewSnapshotter}
	}
	var parallel *semaphore.Weighted
	if d.opts.Parallel > 0 {
		parallel = semaphore.NewWeighted(int64(d.opts.Parallel))
	}
	// The steps' network is the pod's: the platform gives the pod its address,
	// its policies and its accounting, and the steps share them.
	net := netproviders.Opt{Mode: "host"}
	// In a user namespace no cgroups can be made: the steps stay in the pod's,
	// whose limits hold for them too.
	rootless := userns.RunningInUserNS()
	opt, err := runc.NewWorkerOpt(d.opts.Root, snapshots, rootless, oci.ProcessSandbox, nil, nil, net, nil,
		d.opts.Runc, "", false, parallel, "", "", nil)
	if err != nil {
		return nil, fmt.Errorf("open the worker's state: %w", err)
	}
	opt.GCPolicy = collectPolicy(d.opts.CacheSize, d.opts.KeepFree, d.opts.Root)
	opt.BuildkitVersion = buildkit.BuildkitVersion{Package: version.Package, Version: version.Version, Revision: version.Revision}
	opt.RegistryHosts = d.opts.Hosts
	if d.opts.Surroundings != nil {
		dir := filepath.Join(d.opts.Root, "steps")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("create the steps' directory: %w", err)
		}
		opt.Executor = &stepExecutor{Executor: opt.Executor, dir: dir, surroundings: d.opts.Surroundings}
	}
	w, err := base.NewWorker(ctx, opt)
	if err != nil {
		return nil, fmt.Errorf("start the worker: %w", err)
	}
	if d.opts.Bases == nil {
		return w, nil
	}
	return &baseWorker{Worker: w, bases: d.opts.Bases}, nil
}

// Client returns a client that is inside: it needs no token. Its connections
// work while Serve runs.
func (d *Daemon) Client(ctx context.Context) (*buildkit.Client, error) {
	c, err := buildkit.New(ctx, "", buildkit.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return d.inside.dial(ctx)
	}))
	if err != nil {
		return nil, fmt.Errorf("connect to the builder: %w", err)
	}
	return c, nil
}

// Wait blocks until the daemon answers, which it does once Serve runs, or until
// ctx ends.
func (d *Daemon) Wait(ctx context.Context) error {
	c, err := d.Client(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Wait(ctx); err != nil {
		return fmt.Errorf("wait for the builder: %w", err)
	}
	return nil
}

// Serve answers on l until ctx ends, then gives running builds a moment to end
// and closes the state. It owns l.
func (d *Daemon) Serve(ctx context.Context, l net.Listener) error {
	outer := newServer(d.opts.Authorize)
	inner := newServer(nil)
	d.controller.Register(outer)
	d.controller.Register(inner)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return outer.Serve(l) })
	g.Go(func() error { return inner.Serve(d.inside) })
	g.Go(func() error {
		<-ctx.Done()
		// A graceful stop would wait for sessions, which last as long as their
		// clients like: cancelling them ends their builds in order.
		outer.Stop()
		inner.Stop()
		return nil
	})
	err := g.Wait()
	if err != nil {
		err = fmt.Errorf("serve builds: %w", err)
	}
	return errors.Join(err, d.Close())
}

// Close ends a daemon that does not serve.
func (d *Daemon) Close() error {
	return errors.Join(d.controller.Close(), d.lock.Unlock())
}
