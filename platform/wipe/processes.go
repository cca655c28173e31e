package wipe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/emerald-platform/emerald/platform/cgroup"
	"github.com/emerald-platform/emerald/platform/containers"
	"github.com/emerald-platform/emerald/platform/dirs"
)

// containerGrace is how long a container may take to end by itself: long enough
// for a database to write down what it has, short enough for somebody waiting.
const containerGrace = 10 * time.Second

// stopPods asks every container to end, all at once, and then lets the runtime
// take the pods apart. What does not answer is left to the caller's kill.
func stopPods(ctx context.Context, o Options) {
	if running, err := containers.Running(o.Dirs); err != nil || !running {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, containerGrace+5*time.Second)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+o.Dirs.ContainerdSocket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return
	}
	defer conn.Close()
	runtime := cri.NewRuntimeServiceClient(conn)
	list, err := runtime.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{
		State: &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING},
	}})
	if err != nil {
		o.Log.Warn("container runtime does not answer; its containers are killed", "error", err)
		return
	}
	var group sync.WaitGroup
	for _, c := range list.Containers {
		group.Go(func() {
			_, err := runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: c.Id, Timeout: int64(containerGrace / time.Second)})
			if err != nil {
				o.Log.Warn("container not stopped, it is killed", "container", c.Metadata.GetName(), "error", err)
			}
		})
	}
	group.Wait()
	pods, err := runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return
	}
	for _, p := range pods.Items {
		group.Go(func() {
			if _, err := runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.Id}); err != nil {
				o.Log.Warn("pod not stopped, it is killed", "pod", p.Metadata.GetName(), "error", err)
			}
		})
	}
	group.Wait()
}

// killRest kills what still runs of the machine: its cgroups, and the processes
// of programs from its directories wherever they are.
func killRest(ctx context.Context, o Options) error {
	tree := cgroup.Tree{Root: o.CgroupRoot}
	var errs []error
	if tree.Exists() {
		errs = append(errs, tree.Kill(ctx, ""))
	}
	for {
		pids, err := processesOf(o.Dirs)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		if len(pids) == 0 {
			return errors.Join(errs...)
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return errors.Join(append(errs, fmt.Errorf("kill process %d: %w", pid, err))...)
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(append(errs, fmt.Errorf("kill processes %v: %w", pids, context.Cause(ctx)))...)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// processesOf lists the processes that run a program of the machine's own
// directories or live in a root below them, except the caller.
func processesOf(d dirs.Dirs) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		for _, link := range []string{"exe", "root"} {
			target, err := os.Readlink(filepath.Join("/proc", e.Name(), link))
			if err == nil && (below(target, d.Bin()) || below(target, d.ContainerdState()) || below(target, d.CNIBin())) {
				out = append(out, pid)
				break
			}
		}
	}
	return out, nil
}

// below reports whether path is dir or in it.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}
