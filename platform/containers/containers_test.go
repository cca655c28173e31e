package containers_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/emerald-platform/emerald/platform/cgroup"
	"github.com/emerald-platform/emerald/platform/containers"
	"github.com/emerald-platform/emerald/platform/isolated"
	"github.com/emerald-platform/emerald/platform/selfimage"
)

// TestMain makes the test binary a runtime, too: [containers.Start] runs this
// very program again.
func TestMain(m *testing.M) {
	isolated.Main(m, isolated.Program{Name: "containerd", Run: containers.Main})
}

// machine is a container runtime with directories and cgroups of its own.
type machine struct {
	containers.Options
	cri.RuntimeServiceClient
	runtime *containers.Runtime
	pause   string
}

func start(t *testing.T, o containers.Options) *containers.Runtime {
	t.Helper()
	began := time.Now()
	rt, err := containers.Start(t.Context(), o)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(o.Dirs.Log(), "containerd.log"))
		stderr, _ := os.ReadFile(filepath.Join(o.Dirs.Log(), "containerd.stderr"))
		t.Fatalf("%v\n%s\n%s", err, log, stderr)
	}
	t.Logf("start took %v", time.Since(began))
	t.Cleanup(func() { rt.Close() })
	return rt
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	isolated.Require(t)
	tree := isolated.Cgroups(t)
	m := &machine{Options: containers.Options{
		Dirs: isolated.Dirs(t), CgroupRoot: tree.Root, Log: slog.New(slog.DiscardHandler),
	}}
	if err := tree.Create("kubepods"); err != nil {
		t.Fatal(err)
	}
	// Before the directories go, which the cleanup of isolated does.
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := tree.Kill(ctx, ""); err != nil {
			t.Error(err)
		}
	})
	m.runtime = start(t, m.Options)
	began := time.Now()
	if _, err := selfimage.Ensure(t.Context(), m.runtime, m.Dirs, []byte("bundle"), m.Log); err != nil {
		t.Fatal(err)
	}
	t.Logf("images took %v", time.Since(began))
	var err error
	if m.pause, err = containers.PauseImage(); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix://"+m.runtime.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m.RuntimeServiceClient = cri.NewRuntimeServiceClient(conn)
	return m
}

// runPod starts a pod with a container on the host network.
func (m *machine) runPod(t *testing.T, name string) {
	t.Helper()
	began := time.Now()
	security := &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}
	pod := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Uid: name, Namespace: "default"},
		LogDirectory: filepath.Join(m.Dirs.PodLogs(), name),
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    m.CgroupRoot + "/kubepods",
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: security},
		},
	}
	sandbox, err := m.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: pod})
	if err != nil {
		t.Fatal(err)
	}
	container, err := m.CreateContainer(t.Context(), &cri.CreateContainerRequest{
		PodSandboxId: sandbox.PodSandboxId, SandboxConfig: pod,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "waits"},
			Image:    &cri.ImageSpec{Image: m.pause},
			LogPath:  "waits.log",
			Linux:    &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: security}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.StartContainer(t.Context(), &cri.StartContainerRequest{ContainerId: container.ContainerId}); err != nil {
		t.Fatal(err)
	}
	t.Logf("pod took %v", time.Since(began))
}

func (m *machine) readyPods(t *testing.T) []string {
	t.Helper()
	r, err := m.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{
		State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range r.Items {
		out = append(out, p.Metadata.Name)
	}
	return out
}

// runtimePID finds the containerd of the machine by what it has open.
func (m *machine) runtimePID(t *testing.T) int {
	t.Helper()
	pids, err := cgroup.Tree{Root: m.CgroupRoot}.Processes(cgroup.Runtime)
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.HasPrefix(string(args), "emerald\x00containerd\x00") {
			return pid
		}
	}
	t.Fatalf("no containerd among %v", pids)
	return 0
}

// processes returns the first process of every running container.
func (m *machine) processes(t *testing.T) []uint32 {
	t.Helper()
	// A connection that was broken a moment ago is not tried for a second.
	client, err := containerd.New(m.runtime.Socket, containerd.WithDefaultNamespace(containers.Namespace))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	tasks, err := client.TaskService().List(namespaces.WithNamespace(t.Context(), containers.Namespace), new(tasks.ListTasksRequest))
	if err != nil {
		t.Fatal(err)
	}
	var out []uint32
	for _, task := range tasks.Tasks {
		if task.Status == tasktypes.Status_RUNNING {
			out = append(out, task.Pid)
		}
	}
	slices.Sort(out)
	return out
}

// TestContainersOutlive checks what the package promises: pods go on running
// whatever happens to the machine process and to the runtime.
func TestContainersOutlive(t *testing.T) {
	m := newMachine(t)
	m.runPod(t, "one")
	pid, processes := m.runtimePID(t), m.processes(t)
	if len(processes) != 2 {
		t.Fatalf("processes of the pod: %v", processes)
	}

	t.Run("a machine process that starts again adopts the runtime", func(t *testing.T) {
		start(t, m.Options)
		if got := m.runtimePID(t); got != pid {
			t.Errorf("containerd is process %d, was %d", got, pid)
		}
	})
	t.Run("a runtime that is killed comes back with its pods", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		watching := make(chan error, 1)
		go func() { watching <- m.runtime.Watch(ctx) }()
		defer func() {
			cancel()
			if err := <-watching; err != nil {
				t.Error(err)
			}
		}()
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for {
			if r, err := m.Version(t.Context(), &cri.VersionRequest{}, grpc.WaitForReady(true)); err == nil && r.RuntimeName != "" {
				break
			}
			if time.Since(began) > 20*time.Second {
				t.Fatal("the runtime does not come back")
			}
		}
		t.Logf("back after %v", time.Since(began))
		if got := m.readyPods(t); len(got) != 1 {
			t.Errorf("pods: %v, want one", got)
		}
		if got := m.processes(t); !slices.Equal(got, processes) {
			t.Errorf("processes of the pod: %v, were %v", got, processes)
		}
		m.runPod(t, "two")
	})
	t.Run("a runtime of another configuration is replaced", func(t *testing.T) {
		before := m.runtimePID(t)
		other := filepath.Join(m.Dirs.Data, "emerald-next")
		data, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(other, data, 0o755); err != nil {
			t.Fatal(err)
		}
		o := m.Options
		o.Executable = other
		start(t, o)
		if got := m.runtimePID(t); got == before {
			t.Errorf("containerd is still process %d", got)
		}
		if got := m.processes(t); len(got) != 4 || !slices.Contains(got, processes[0]) || !slices.Contains(got, processes[1]) {
			t.Errorf("processes of the pods: %v, want four and %v among them", got, processes)
		}
		if got := m.readyPods(t); len(got) != 2 {
			t.Errorf("pods: %v, want two", got)
		}
	})
	t.Run("stop leaves the pods", func(t *testing.T) {
		if err := containers.Stop(t.Context(), m.Dirs); err != nil {
			t.Fatal(err)
		}
		if err := containers.Stop(t.Context(), m.Dirs); err != nil {
			t.Errorf("stop what is stopped: %v", err)
		}
		start(t, m.Options)
		if got := m.readyPods(t); len(got) != 2 {
			t.Errorf("pods: %v, want two", got)
		}
	})
}

// TestImageSurvives checks that an image whose files a power loss cut short is
// made anew.
func TestImageSurvives(t *testing.T) {
	m := newMachine(t)
	found, err := filepath.Glob(filepath.Join(m.Dirs.ContainerdRoot(), "io.containerd.snapshotter.v1.overlayfs", "snapshots", "*", "fs", "etc", "passwd"))
	if err != nil || len(found) != 1 {
		t.Fatalf("find the image's files: %v %v", found, err)
	}
	if err := os.Truncate(found[0], 0); err != nil {
		t.Fatal(err)
	}
	if _, err := selfimage.Ensure(t.Context(), m.runtime, m.Dirs, []byte("bundle"), m.Log); err != nil {
		t.Fatal(err)
	}
	found, _ = filepath.Glob(filepath.Join(m.Dirs.ContainerdRoot(), "io.containerd.snapshotter.v1.overlayfs", "snapshots", "*", "fs", "etc", "passwd"))
	for _, path := range found {
		if st, err := os.Stat(path); err == nil && st.Size() > 0 {
			return
		}
	}
	t.Errorf("the image's files were not made anew: %v", found)
}
