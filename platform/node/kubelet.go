package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/validation"

	"github.com/emerald-platform/emerald/platform/sysctl"
)

// runtimeTimeout is how long the container runtime may be away before a node
// that starts gives up on it.
const runtimeTimeout = 2 * time.Minute

// kubeletSettings are the kernel settings that the kubelet changes.
var kubeletSettings = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

// runKubelet runs upstream's kubelet until ctx ends.
func runKubelet(ctx context.Context, o Options, resolvConf string) error {
	config, err := kubeletConfiguration(o, resolvConf)
	if err != nil {
		return err
	}
	if err := (sysctl.Record{Path: o.Dirs.Sysctls()}).Remember(kubeletSettings...); err != nil {
		return err
	}
	credentials, err := writeCredentialProvider(o)
	if err != nil {
		return err
	}
	// The link directory is fixed in upstream, and it warns about every
	// container while it is missing.
	if err := os.MkdirAll("/var/log/containers", 0o755); err != nil {
		return fmt.Errorf("prepare the kubelet: %w", err)
	}
	flags := options.NewKubeletFlags()
	flags.KubeConfig = o.Dirs.KubeletKubeconfig()
	flags.BootstrapKubeconfig = o.BootstrapKubeconfig
	flags.CertDirectory = o.Dirs.KubeletPKI()
	flags.RootDirectory = o.Dirs.Kubelet()
	flags.HostnameOverride = o.Name
	flags.NodeIP = o.Address.String()
	flags.NodeLabels = o.Labels
	flags.ImageCredentialProviderConfigPath = credentials.config
	flags.ImageCredentialProviderBinDir = credentials.programs
	if err := options.ValidateKubeletFlags(flags); err != nil {
		return fmt.Errorf("configure the kubelet: %w", err)
	}
	server := &options.KubeletServer{KubeletFlags: *flags, KubeletConfiguration: *config}
	dependencies, err := app.UnsecuredDependencies(ctx, server, utilfeature.DefaultFeatureGate)
	if err != nil {
		return fmt.Errorf("prepare the kubelet: %w", err)
	}
	// The kubelet gives up when the container runtime is away as it starts.
	if err := awaitRuntime(ctx, o.RuntimeSocket); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if err := app.Run(ctx, server, dependencies, utilfeature.DefaultFeatureGate); err != nil && ctx.Err() == nil {
		return fmt.Errorf("run the kubelet: %w", err)
	}
	return nil
}

// awaitRuntime returns when the container runtime answers.
func awaitRuntime(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, runtimeTimeout)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second}}))
	if err != nil {
		return fmt.Errorf("connect to the container runtime: %w", err)
	}
	defer conn.Close()
	for {
		_, err := cri.NewRuntimeServiceClient(conn).Status(ctx, &cri.StatusRequest{}, grpc.WaitForReady(true))
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the container runtime on %s: %w", socket, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// openFiles returns how many files this process may open, at most want.
func openFiles(want int64) int64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Max > uint64(want) {
		return want
	}
	return int64(limit.Max)
}

// kubeletConfiguration returns the node's part of upstream's configuration:
// its defaults, and what is said here.
func kubeletConfiguration(o Options, resolvConf string) (*kubeletconfig.KubeletConfiguration, error) {
	c, err := options.NewKubeletConfiguration()
	if err != nil {
		return nil, fmt.Errorf("make the kubelet's configuration: %w", err)
	}
	// Who may ask.
	c.Authentication.Anonymous.Enabled = false
	c.Authentication.Webhook.Enabled = true
	c.Authentication.X509.ClientCAFile = o.ClientCA
	c.Authorization.Mode = kubeletconfig.KubeletAuthorizationModeWebhook
	c.Port, c.ReadOnlyPort = o.Ports.Kubelet, 0
	c.HealthzPort, c.HealthzBindAddress = o.Ports.KubeletHealth, "127.0.0.1"
	c.RotateCertificates = true
	c.ServerTLSBootstrap = true
	// Would serve the whole of the machine's /var/log.
	c.EnableSystemLogHandler = false

	// The machine.
	c.CgroupRoot = o.CgroupRoot
	c.CgroupDriver = "cgroupfs"
	c.CgroupsPerQOS = true
	c.FailCgroupV1 = false
	c.FailSwapOn = false
	c.ProtectKernelDefaults = false
	c.ContainerRuntimeEndpoint = "unix://" + o.RuntimeSocket
	c.VolumePluginDir = filepath.Join(o.Dirs.Kubelet(), "volume-plugins")
	c.StaticPodPath = ""
	c.SeccompDefault = true
	c.RegisterWithTaints = o.Taints
	c.NodeStatusUpdateFrequency = metav1.Duration{Duration: 10 * time.Second}
	// More than is allowed it would not get, and complain.
	c.MaxOpenFiles = openFiles(c.MaxOpenFiles)
	// Containers outlive the kubelet on purpose, and a machine that shuts down
	// must not wait for them twice.
	c.ShutdownGracePeriod = metav1.Duration{}
	c.ShutdownGracePeriodCriticalPods = metav1.Duration{}
	// What dies comes back: a container that ended several times within ten
	// minutes waits half a minute, not five.
	c.CrashLoopBackOff.MaxContainerRestartPeriod = &metav1.Duration{Duration: 30 * time.Second}

	// Names.
	c.ClusterDomain = o.ClusterDomain
	c.ClusterDNS = nil
	for _, a := range o.ClusterDNS {
		c.ClusterDNS = append(c.ClusterDNS, a.String())
	}
	c.ResolverConfig = resolvConf

	// Disk. In percent, so that the same is right for a small disk and a big
	// one.
	c.PodLogsDir = o.Dirs.PodLogs()
	c.ContainerLogMaxSize = "10Mi"
	c.ContainerLogMaxFiles = 3
	c.ImageGCHighThresholdPercent = 90
	c.ImageGCLowThresholdPercent = 80
	c.EvictionHard = map[string]string{
		"memory.available":   "100Mi",
		"nodefs.available":   "5%",
		"nodefs.inodesFree":  "3%",
		"imagefs.available":  "5%",
		"imagefs.inodesFree": "3%",
	}
	c.SerializeImagePulls = false
	parallel := int32(3)
	c.MaxParallelImagePulls = &parallel
	if err := validation.ValidateKubeletConfiguration(c, utilfeature.DefaultFeatureGate); err != nil {
		return nil, fmt.Errorf("configure the kubelet: %w", err)
	}
	return c, nil
}
