package install

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emerald-platform/emerald/battery"
)

func ptr[T any](v T) *T { return &v }

func TestDeploymentWaits(t *testing.T) {
	const applied = 3
	for name, tc := range map[string]struct {
		d    *appsv1.Deployment
		want string
	}{
		"not seen":             {nil, "waits for the rollout"},
		"seen before":          {deployment(2, 2, 1, 1, 1, 1), "waits for the rollout"},
		"not observed":         {deployment(3, 2, 1, 1, 1, 1), "waits for the rollout"},
		"rolled out":           {deployment(3, 3, 1, 1, 1, 1), ""},
		"newer, too":           {deployment(4, 4, 1, 1, 1, 1), ""},
		"no new copy":          {deployment(3, 3, 2, 2, 0, 2), "0/2 copies"},
		"new, not available":   {deployment(3, 3, 2, 2, 2, 1), "1/2 copies"},
		"an old copy is left":  {deployment(3, 3, 2, 3, 2, 3), "2/2 copies"},
		"none wanted":          {deployment(3, 3, 0, 0, 0, 0), ""},
		"none there at all":    {deployment(3, 3, 1, 0, 0, 0), "0/1 copies"},
		"default is one copy":  {&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Generation: 3}, Status: appsv1.DeploymentStatus{ObservedGeneration: 3}}, "0/1 copies"},
		"more than is wanted?": {deployment(3, 3, 1, 2, 2, 2), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := deploymentWaits(tc.d, applied); got != tc.want {
				t.Errorf("waits %q, want %q", got, tc.want)
			}
		})
	}
}

func deployment(generation, observed int64, want, have, updated, available int32) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Generation: generation},
		Spec:       appsv1.DeploymentSpec{Replicas: &want},
		Status: appsv1.DeploymentStatus{
			ObservedGeneration: observed, Replicas: have, UpdatedReplicas: updated, AvailableReplicas: available,
		},
	}
}

func TestStatefulSetWaits(t *testing.T) {
	set := func(generation int64, updated, available int32) *appsv1.StatefulSet {
		return &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Generation: generation}, Spec: appsv1.StatefulSetSpec{Replicas: ptr(int32(2))},
			Status: appsv1.StatefulSetStatus{ObservedGeneration: 1, UpdatedReplicas: updated, AvailableReplicas: available},
		}
	}
	for name, tc := range map[string]struct {
		s    *appsv1.StatefulSet
		want string
	}{
		"not seen": {nil, "waits for the rollout"}, "not observed": {set(2, 2, 2), "waits for the rollout"},
		"half": {set(1, 2, 1), "1/2 copies"}, "done": {set(1, 2, 2), ""},
	} {
		if got := statefulSetWaits(tc.s, 1); got != tc.want {
			t.Errorf("%s: waits %q, want %q", name, got, tc.want)
		}
	}
}

func TestDaemonSetWaits(t *testing.T) {
	set := func(want, updated, available int32) *appsv1.DaemonSet {
		return &appsv1.DaemonSet{
			ObjectMeta: metav1.ObjectMeta{Generation: 1},
			Status: appsv1.DaemonSetStatus{
				ObservedGeneration: 1, DesiredNumberScheduled: want, UpdatedNumberScheduled: updated, NumberAvailable: available,
			},
		}
	}
	for name, tc := range map[string]struct {
		d    *appsv1.DaemonSet
		want string
	}{
		"not seen": {nil, "waits for the rollout"}, "no machine": {set(0, 0, 0), "waits for a machine"},
		"one of three": {set(3, 1, 3), "1/3 machines"}, "done": {set(3, 3, 3), ""},
	} {
		if got := daemonSetWaits(tc.d, 1); got != tc.want {
			t.Errorf("%s: waits %q, want %q", name, got, tc.want)
		}
	}
}

// pods of the shared controllers.
func controllers(name, site string, conditions ...corev1.PodCondition) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "emerald-system", Name: name, Annotations: map[string]string{battery.AnnotationSite: site}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, Conditions: conditions},
	}
}

func says(battery string, status corev1.ConditionStatus) corev1.PodCondition {
	return corev1.PodCondition{Type: corev1.PodConditionType("emerald.dev/" + battery), Status: status}
}

func TestRunsSomewhere(t *testing.T) {
	ready, starting := says("certs", corev1.ConditionTrue), says("certs", corev1.ConditionFalse)
	gone := controllers("gone", "new", ready)
	gone.DeletionTimestamp = ptr(metav1.Now())
	ended := controllers("ended", "new", ready)
	ended.Status.Phase = corev1.PodFailed
	lost := controllers("lost", "new")
	lost.Status.Phase = corev1.PodPending
	lost.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/1 nodes are available"}}
	const waits, logs = "waits for emerald-controllers", "not ready yet: kubectl logs -n emerald-system "
	for name, tc := range map[string]struct {
		pods []*corev1.Pod
		site string
		want string
	}{
		"none":                    {nil, "new", waits},
		"ready":                   {[]*corev1.Pod{controllers("a", "new", ready)}, "new", ""},
		"the leader is ready":     {[]*corev1.Pod{controllers("a", "new", starting), controllers("b", "new", ready)}, "new", ""},
		"starting":                {[]*corev1.Pod{controllers("a", "new", starting)}, "new", logs + "a"},
		"another battery":         {[]*corev1.Pod{controllers("a", "new", says("apps", corev1.ConditionTrue))}, "new", waits},
		"other settings":          {[]*corev1.Pod{controllers("a", "old", ready)}, "new", waits},
		"settings not yet known":  {[]*corev1.Pod{controllers("a", "", ready)}, "", waits},
		"on its way out":          {[]*corev1.Pod{gone}, "new", waits},
		"ended":                   {[]*corev1.Pod{ended}, "new", waits},
		"no room for it anywhere": {[]*corev1.Pod{lost}, "new", waits + ": pod lost: 0/1 nodes are available"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := runsSomewhere("certs", tc.pods, tc.site); got != tc.want {
				t.Errorf("waits %q, want %q", got, tc.want)
			}
		})
	}
}

func TestRunsEverywhere(t *testing.T) {
	set := &appsv1.DaemonSet{Status: appsv1.DaemonSetStatus{DesiredNumberScheduled: 2}}
	ready := says("journal", corev1.ConditionTrue)
	for name, tc := range map[string]struct {
		set  *appsv1.DaemonSet
		pods []*corev1.Pod
		want string
	}{
		"not there": {nil, nil, "waits for emerald-node"},
		"no nodes":  {&appsv1.DaemonSet{}, nil, "waits for emerald-node"},
		"half":      {set, []*corev1.Pod{controllers("a", "x", ready), controllers("b", "old", ready)}, "1/2 machines"},
		"all":       {set, []*corev1.Pod{controllers("a", "x", ready), controllers("b", "x", ready)}, ""},
	} {
		if got := runsEverywhere("journal", tc.set, tc.pods, "x"); got != tc.want {
			t.Errorf("%s: waits %q, want %q", name, got, tc.want)
		}
	}
}

func TestTrouble(t *testing.T) {
	pod := func(s corev1.ContainerState, last corev1.ContainerState) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "emerald-dns", Name: "dns-1"},
			Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{
				{Name: "dns", State: s, LastTerminationState: last},
			}},
		}
	}
	waiting := func(reason, message string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
	ended := func(reason string, code int32) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code}}
	}
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"fine":      {pod(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, corev1.ContainerState{}), ""},
		"on my way": {pod(waiting("ContainerCreating", ""), corev1.ContainerState{}), ""},
		"no image":  {pod(waiting("ErrImageNeverPull", `image "x" is not present`), corev1.ContainerState{}), `ErrImageNeverPull: image "x" is not present`},
		"crashes": {
			pod(waiting("CrashLoopBackOff", "back-off 10s"), ended("OOMKilled", 137)),
			"CrashLoopBackOff: the last run ended with OOMKilled, exit code 137: kubectl logs -n emerald-dns dns-1 -c dns --previous",
		},
		"crashed": {pod(ended("Error", 1), corev1.ContainerState{}), "ended with Error, exit code 1: kubectl logs -n emerald-dns dns-1 -c dns"},
		"done":    {pod(ended("Completed", 0), corev1.ContainerState{}), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := trouble(tc.pod); got != tc.want {
				t.Errorf("trouble %q, want %q", got, tc.want)
			}
		})
	}
}
