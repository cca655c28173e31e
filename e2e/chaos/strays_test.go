//go:build e2e

package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/emerald-platform/emerald/platform/cgroup"
)

// strays are things that nothing needs, and since when.
type strays map[string]time.Time

var (
	podPattern       = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	containerPattern = regexp.MustCompile(`[0-9a-f]{64}`)
)

// lookForStrays fails the test when something has been left for too long.
func (c *campaign) lookForStrays(what string) {
	c.t.Helper()
	c.must(what+": look for what is left", time.Minute, func(ctx context.Context) error {
		now, _, err := c.findStrays(ctx)
		if err != nil {
			return err
		}
		maps.DeleteFunc(c.stray, func(name string, _ time.Time) bool { return !slices.Contains(now, name) })
		for _, name := range now {
			if c.stray[name].IsZero() {
				c.stray[name] = time.Now()
			}
		}
		return nil
	})
	for name, since := range c.stray {
		if time.Since(since) > leftoverLimit {
			c.t.Errorf("%s: left for %.0fs: %s", what, time.Since(since).Seconds(), name)
			c.stray[name] = time.Now() // once is enough
		}
	}
}

// noStrays waits until nothing is left at all.
func (c *campaign) noStrays(what string) {
	c.must(what+": everything that is not needed goes", leftoverLimit, func(ctx context.Context) error {
		soon, later, err := c.findStrays(ctx)
		if left := append(soon, later...); err == nil && len(left) > 0 {
			err = errors.New(strings.Join(left, "\n"))
		}
		return err
	})
}

// findStrays returns what must go soon, and what the kubelet tidies up by the
// minute, if it lives that long.
func (c *campaign) findStrays(ctx context.Context) (soon, later []string, err error) {
	add := func(format string, args ...any) { soon = append(soon, fmt.Sprintf(format, args...)) }
	addLater := func(format string, args ...any) { later = append(later, fmt.Sprintf(format, args...)) }

	// What runs is asked for before the cluster is, so that what is made in
	// between is not taken for a stray; what goes in between is there next time no more.
	kept, unused, err := c.containers(ctx)
	if err != nil {
		return nil, nil, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, nil, err
	}
	pids, err := cgroup.Tree{Root: c.CgroupRoot()}.Processes("")
	if err != nil {
		return nil, nil, err
	}
	processes := map[int]process{}
	for _, pid := range pids {
		processes[pid] = processOf(pid)
	}
	var pods corev1.PodList
	if err := c.api.List(ctx, &pods); err != nil {
		return nil, nil, err
	}
	live := map[string]string{}
	builder := ""
	for _, p := range pods.Items {
		live[string(p.UID)] = p.Name
		if p.Namespace == "emerald-build" {
			builder = string(p.UID)
		}
		if p.DeletionTimestamp != nil {
			add("pod %s/%s, which was deleted", p.Namespace, p.Name)
		}
		if p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodUnknown {
			add("pod %s/%s, which is %s", p.Namespace, p.Name, p.Status.Phase)
		}
	}
	var sets appsv1.ReplicaSetList
	if err := c.api.List(ctx, &sets); err != nil {
		return nil, nil, err
	}
	for _, rs := range sets.Items {
		if *rs.Spec.Replicas != rs.Status.ReadyReplicas || *rs.Spec.Replicas != rs.Status.Replicas {
			add("replica set %s/%s, which is stuck", rs.Namespace, rs.Name)
		}
	}
	for id, pod := range kept {
		if pod != "" && live[pod] == "" {
			addLater("container %.12s of pod %s, which is gone", id, pod)
		}
	}
	for _, s := range unused {
		addLater("snapshot %s, which no container uses", s)
	}
	for line := range strings.Lines(string(mounts)) {
		path := strings.Fields(line)[4]
		switch id := containerPattern.FindString(path); {
		case !strings.HasPrefix(path, c.Dirs.Run+"/") && !strings.HasPrefix(path, c.Dirs.Data+"/"):
		case id != "" && strings.HasPrefix(path, c.Dirs.Run):
			if _, ok := kept[id]; !ok {
				addLater("mount %s of a container that is gone", path)
			}
		case strings.HasPrefix(path, c.Dirs.Kubelet()+"/pods/"):
			if pod := podPattern.FindString(path); live[pod] == "" {
				addLater("mount %s of a pod that is gone", path)
			}
		}
	}
	for pid, p := range processes {
		switch {
		case p.program == "":
		case p.pod != "" && live[p.pod] == "":
			add("process %d (%s) of a pod that is gone", pid, p.program)
		case strings.Contains(p.program, "containerd-shim"):
			if _, ok := kept[p.id]; !ok && p.id != "" {
				add("process %d, the shim of container %.12s that is gone", pid, p.id)
			}
		case p.pod == builder && p.pod != "" && p.program != "/pause" && p.program != "/emerald":
			add("process %d (%s) of a build, while nothing is built", pid, p.program)
		}
	}
	return soon, later, nil
}

// containers returns the runtime's containers with the pod each belongs to, and
// the writable snapshots that belong to none.
func (c *campaign) containers(ctx context.Context) (kept map[string]string, unused []string, err error) {
	rt, err := containerd.New(c.Dirs.ContainerdSocket())
	if err != nil {
		return nil, nil, fmt.Errorf("ask the container runtime: %w", err)
	}
	defer rt.Close()
	ctx = namespaces.WithNamespace(ctx, "k8s.io")
	var layers []string
	snapshotter := rt.SnapshotService("overlayfs")
	err = snapshotter.Walk(ctx, func(_ context.Context, s snapshots.Info) error {
		if s.Kind == snapshots.KindActive {
			layers = append(layers, s.Name)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list snapshots: %w", err)
	}
	all, err := rt.ContainerService().List(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("list containers: %w", err)
	}
	kept = map[string]string{}
	for _, k := range all {
		kept[k.ID] = k.Labels["io.kubernetes.pod.uid"]
		layers = slices.DeleteFunc(layers, func(key string) bool { return key == k.SnapshotKey })
	}
	return kept, layers, nil
}
