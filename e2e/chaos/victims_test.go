//go:build e2e

package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/platform/cgroup"
	"github.com/emerald-platform/emerald/platform/machine"
)

// victim is what a round kills.
type victim struct {
	name string
	// kill ends it with no warning and returns what says, by nil, that another
	// one has taken its place.
	kill func(context.Context) (back check, err error)
	// helped: nothing is left that could bring it back, so a person does.
	helped bool
}

type check = func(context.Context) error

// victim chooses one. The processes of the machine are chosen more often than
// those of a battery, because more hangs on them.
func (c *campaign) victim() victim {
	both := victim{name: "the machine's process and containerd", helped: true, kill: func(ctx context.Context) (check, error) {
		// Together, so that neither brings back the other.
		runtimeBack, err := c.killRuntime(ctx)
		if err != nil {
			return nil, err
		}
		machineBack, err := c.killMachine(ctx)
		return func(ctx context.Context) error { return errors.Join(runtimeBack(ctx), machineBack(ctx)) }, err
	}}
	options := []victim{
		{name: "the machine's process", kill: c.killMachine}, {name: "the machine's process", kill: c.killMachine},
		{name: "the machine's process", kill: c.killMachine},
		{name: "containerd", kill: c.killRuntime}, {name: "containerd", kill: c.killRuntime},
		both, both,
	}
	for _, name := range []string{"gateway", "registry", "build", "dns"} {
		options = append(options, victim{name: name, kill: c.killPod("emerald-" + name)})
	}
	options = append(options, victim{name: "controllers", kill: c.killPod("emerald-system")})
	return options[c.random.IntN(len(options))]
}

func (c *campaign) killMachine(context.Context) (check, error) {
	old := machine.PID(c.Dirs)
	if old == 0 {
		return nil, errors.New("no machine runs")
	}
	return func(ctx context.Context) error {
		s, err := machine.Follow(ctx, c.Dirs, -1)
		if err != nil {
			return err
		}
		if s.PID == old || !s.Ready {
			return fmt.Errorf("the machine is not up: %+v", s)
		}
		return nil
	}, unix.Kill(old, unix.SIGKILL)
}

func (c *campaign) killRuntime(context.Context) (check, error) {
	pid := func() (int, error) {
		raw, err := os.ReadFile(c.Dirs.ContainerdLock())
		if err != nil {
			return 0, err
		}
		var holder struct{ PID int }
		return holder.PID, json.NewDecoder(bytes.NewReader(raw)).Decode(&holder)
	}
	old, err := pid()
	if err != nil {
		return nil, err
	}
	return func(context.Context) error {
		now, err := pid()
		if err == nil && now == old {
			err = errors.New("containerd is not back")
		}
		return err
	}, unix.Kill(old, unix.SIGKILL)
}

// killPod kills the first process of a container in a namespace of one pod.
func (c *campaign) killPod(namespace string) func(context.Context) (check, error) {
	return func(ctx context.Context) (check, error) {
		var pods corev1.PodList
		if err := c.api.List(ctx, &pods, client.InNamespace(namespace)); err != nil {
			return nil, err
		}
		for _, pod := range pods.Items {
			if len(pod.Status.ContainerStatuses) != 1 {
				continue
			}
			old := pod.Status.ContainerStatuses[0].ContainerID
			pid, err := c.firstProcess(&pod)
			if err != nil {
				return nil, err
			}
			if pid == 0 {
				continue
			}
			return func(ctx context.Context) error {
				var now corev1.PodList
				if err := c.api.List(ctx, &now, client.InNamespace(namespace)); err != nil {
					return err
				}
				for _, pod := range now.Items {
					for _, s := range pod.Status.ContainerStatuses {
						if s.ContainerID != old && s.Ready && pod.DeletionTimestamp == nil {
							return nil
						}
					}
				}
				return fmt.Errorf("nothing in %s has taken the place of what was killed", namespace)
			}, unix.Kill(pid, unix.SIGKILL)
		}
		return nil, fmt.Errorf("no process runs in %s", namespace)
	}
}

// firstProcess returns the process that is 1 in a pod's container, not that of
// a container within it, 0 when none runs.
func (c *campaign) firstProcess(pod *corev1.Pod) (int, error) {
	pids, err := cgroup.Tree{Root: c.CgroupRoot()}.Processes("")
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		p := processOf(pid)
		if p.pod == string(pod.UID) && p.program != "/pause" && p.first {
			return pid, nil
		}
	}
	return 0, nil
}

// process is what /proc tells of one.
type process struct {
	program, id string // the first word of its command line; what follows -id
	pod         string // UID of the pod whose control group it is in
	first       bool   // it is 1 in a namespace just below the machine's
}

// processOf is zero for a process that has ended.
func processOf(pid int) process {
	dir := fmt.Sprintf("/proc/%d/", pid)
	commandLine, err1 := os.ReadFile(dir + "cmdline")
	groups, err2 := os.ReadFile(dir + "cgroup")
	status, err3 := os.ReadFile(dir + "status")
	if err1 != nil || err2 != nil || err3 != nil {
		return process{}
	}
	var p process
	words := strings.Split(string(commandLine), "\x00")
	p.program = words[0]
	if i := slices.Index(words, "-id"); i >= 0 && i+1 < len(words) {
		p.id = words[i+1]
	}
	p.pod = podPattern.FindString(string(groups))
	for line := range strings.Lines(string(status)) {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			numbers := strings.Fields(ids)
			p.first = len(numbers) == 2 && numbers[1] == strconv.Itoa(1)
		}
	}
	return p
}
