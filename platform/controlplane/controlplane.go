// Package controlplane runs upstream's control plane inside this process:
// etcd, kube-apiserver, kube-controller-manager and kube-scheduler, unforked,
// built from their own options in the way their commands build them.
//
// It promises that the API is secure from its first second: nobody is let in
// without a certificate or token, Node and RBAC decide, secrets are encrypted
// before they reach etcd, and every write is in the audit log.
//
// It refuses to run twice in one process: upstream keeps feature gates, metrics
// and configz in global variables.
//
// Invariant: etcd stops last and starts first, so that nothing the API
// acknowledged can be lost on the way down.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"

	"github.com/emerald-platform/emerald/platform/pki"
)

// Ports of the control plane on every server machine.
const (
	APIPort               = 6443
	EtcdClientPort        = 2379
	EtcdPeerPort          = 2380
	EtcdHTTPPort          = 2382 // health and metrics
	ControllerManagerPort = 10257
	SchedulerPort         = 10259
)

// Options say where and as whom the control plane runs.
type Options struct {
	// DataDir is the platform's directory; etcd's data, logs and settings are
	// kept in subdirectories.
	DataDir string
	// Node is the machine's name, Address its address for other machines.
	Node    string
	Address net.IP
	// PodCIDR and ServiceCIDR are the cluster's ranges.
	PodCIDR, ServiceCIDR string
	ClusterDomain        string
	PKI                  *pki.PKI
	Log                  *slog.Logger

	// Ready is called once, when the API serves and the bindings that
	// everybody else needs are in place.
	Ready func()
	// ControllersBuilt is called once, when kube-controller-manager has built
	// its controllers. A kubelet of the same process must start after that:
	// upstream's CSI plugin keeps the node's name in a global variable, and the
	// last one to set it up must be the one that has a name.
	ControllersBuilt func()
}

func (o Options) etcdDir() string { return filepath.Join(o.DataDir, "etcd") }
func (o Options) confDir() string { return filepath.Join(o.DataDir, "conf") }
func (o Options) logDir() string  { return filepath.Join(o.DataDir, "log") }

// apiURL is how the parts of this process reach the API: by the loopback, so
// that a lost uplink does not stop a machine from ruling itself.
func (o Options) apiURL() string { return fmt.Sprintf("https://127.0.0.1:%d", APIPort) }

// Kubeconfig returns the path of the kubeconfig that carries the certificate
// of that name, for example [pki.Machine].
func (o Options) Kubeconfig(name string) string {
	return filepath.Join(o.confDir(), name+".kubeconfig")
}

// Client returns a client configuration with the rights of the machine itself.
// It can be called before Run.
func (o Options) Client() (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig(pki.Machine))
	if err != nil {
		return nil, fmt.Errorf("read the machine's kubeconfig: %w", err)
	}
	cfg.QPS, cfg.Burst = -1, -1 // the API's own priority and fairness decides
	return cfg, nil
}

// Prepare writes the settings that Run, and the node beside it, read. It is
// called once before Run.
func Prepare(o Options) error {
	for _, dir := range []string{o.etcdDir(), o.confDir(), o.logDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("prepare the control plane: %w", err)
		}
	}
	if err := writeKubeconfigs(o); err != nil {
		return fmt.Errorf("prepare the control plane: %w", err)
	}
	if err := writeAPIServerSettings(o); err != nil {
		return fmt.Errorf("prepare the control plane: %w", err)
	}
	return nil
}

// Run runs the control plane until ctx ends, then stops it in order: first
// whoever writes, then the API, then etcd. It returns the first error of a part
// that stopped by itself.
func Run(ctx context.Context, o Options) error {
	etcd, err := startEtcd(ctx, o)
	if err != nil {
		return err
	}
	defer etcd.Close()

	// Each stage outlives the one that needs it.
	apiCtx, stopAPI := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAPI()
	api := make(chan error, 1)
	go func() { api <- runAPIServer(apiCtx, o) }()

	group, workCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		select {
		case <-workCtx.Done():
			return nil
		case err := <-etcd.Err():
			return fmt.Errorf("etcd stopped: %w", err)
		case err := <-api:
			api <- err // for the shutdown below
			return fmt.Errorf("kube-apiserver stopped: %w", errors.Join(err, errStopped))
		}
	})
	group.Go(func() error { return runWorkers(workCtx, o) })
	err = group.Wait()

	stopAPI()
	select {
	case <-api:
	case <-time.After(apiGrace):
		o.Log.Warn("the API did not stop in time: stopping etcd under it")
	}
	return err
}

// apiGrace is how long the API may take to finish the requests under way.
const apiGrace = 10 * time.Second

// errStopped marks a part that returned without an error before it was told to.
var errStopped = errors.New("it returned before it was told to")

// runWorkers waits for the API, puts the first objects in place and runs what
// works on the API: controllers, scheduler, approver.
func runWorkers(ctx context.Context, o Options) error {
	client, err := o.Client()
	if err != nil {
		return err
	}
	if err := waitForAPI(ctx, client); err != nil {
		return stopped(ctx, err)
	}
	o.Log.Info("the API serves")
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return stopped(ctx, runControllerManager(ctx, o)) })
	group.Go(func() error { return stopped(ctx, runScheduler(ctx, o)) })
	group.Go(func() error {
		if err := waitForControllers(ctx, o); err != nil {
			return stopped(ctx, err)
		}
		o.ControllersBuilt()
		return nil
	})
	group.Go(func() error {
		if err := ensureBindings(ctx, client); err != nil {
			return stopped(ctx, err)
		}
		o.Ready()
		return stopped(ctx, runServingApprover(ctx, client, o.Log))
	})
	return group.Wait()
}

// stopped returns nil for whatever ends after ctx did, and an error, never
// nil, for what ended by itself.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(err, errStopped)
}

// waitForAPI returns when /readyz says ok.
func waitForAPI(ctx context.Context, client *rest.Config) error {
	transport, err := rest.HTTPClientFor(client)
	if err != nil {
		return fmt.Errorf("reach the API: %w", err)
	}
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		status, _, err := get(ctx, transport, client.Host+"/readyz")
		if err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the API: %w", errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

// waitForControllers returns when kube-controller-manager's health names the
// last of the controllers that set up volume plugins: it names none before it
// has built them all.
func waitForControllers(ctx context.Context, o Options) error {
	transport, err := rest.HTTPClientFor(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: o.PKI.Cert(pki.ClusterCA)}})
	if err != nil {
		return fmt.Errorf("reach kube-controller-manager: %w", err)
	}
	health := fmt.Sprintf("https://127.0.0.1:%d/healthz?verbose", ControllerManagerPort)
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		_, body, err := get(ctx, transport, health)
		if err == nil && strings.Contains(body, names.PersistentVolumeAttachDetachController) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for kube-controller-manager: %w", errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

// get returns the status and the body of an answer.
func get(ctx context.Context, client *http.Client, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(body), err
}
