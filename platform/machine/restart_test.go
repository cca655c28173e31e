package machine

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDisown(t *testing.T) {
	began := time.Now()
	tests := map[string]struct {
		reason  string
		started time.Time
		id      string
		ready   corev1.ConditionStatus
		want    bool
	}{
		"dead":        {"its container is gone with the machine's former life", began.Add(-time.Hour), "containerd://gone", corev1.ConditionTrue, true},
		"alive":       {"containers outlive a restart of the process", began.Add(-time.Hour), "containerd://runs", corev1.ConditionTrue, false},
		"younger":     {"the kubelet has just started it", began.Add(time.Second), "containerd://new", corev1.ConditionTrue, false},
		"never ready": {"there is nothing to take back", began.Add(-time.Hour), "containerd://gone", corev1.ConditionFalse, false},
		"never begun": {"it does not run by its own word", time.Time{}, "", corev1.ConditionTrue, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := corev1.ContainerStatus{Ready: true, ContainerID: tt.id}
			if !tt.started.IsZero() {
				s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(tt.started)}
			}
			pod := &corev1.Pod{Status: corev1.PodStatus{
				ContainerStatuses: []corev1.ContainerStatus{s},
				Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: tt.ready}},
			}}
			if got := disown(pod, map[string]bool{"runs": true}, began); got != tt.want {
				t.Errorf("%s: got %v, want %v", tt.reason, got, tt.want)
			}
			if ready := pod.Status.Conditions[0].Status == corev1.ConditionTrue; tt.want && ready {
				t.Error("the pod is still ready")
			}
		})
	}
}
