package machine

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
)

// disownDead tells the cluster which pods of this machine are not ready because
// their containers did not outlive what happened to it. Until the kubelet has
// looked at a pod the cluster has the word of the machine's former life, and
// would send requests to it, and call batteries ready that are not.
//
// began is when this life of the machine began: what started later is the
// kubelet's business.
func disownDead(ctx context.Context, kube kubernetes.Interface, runtime *containerd.Client, node string, began time.Time, log *slog.Logger) error {
	running, err := runningContainers(ctx, runtime)
	if err != nil {
		return err
	}
	pods, err := kube.CoreV1().Pods("").List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String(),
	})
	if err != nil {
		return fmt.Errorf("list the pods of node %q: %w", node, err)
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if !disown(pod, running, began) {
			continue
		}
		log.Info("pod did not outlive the machine's former life", "namespace", pod.Namespace, "pod", pod.Name)
		_, err := kube.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		// The kubelet was faster, or the pod is gone.
		if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return fmt.Errorf("say that pod %s/%s is not ready: %w", pod.Namespace, pod.Name, err)
		}
	}
	return nil
}

// disown takes readiness from a pod with a container that is said to run and
// does not, and tells whether it did.
func disown(pod *corev1.Pod, running map[string]bool, began time.Time) bool {
	dead := false
	for i := range pod.Status.ContainerStatuses {
		s := &pod.Status.ContainerStatuses[i]
		_, id, _ := strings.Cut(s.ContainerID, "://")
		if s.State.Running != nil && s.State.Running.StartedAt.Time.Before(began) && !running[id] {
			s.Ready, dead = false, true
		}
	}
	if !dead {
		return false
	}
	changed := false
	for i := range pod.Status.Conditions {
		c := &pod.Status.Conditions[i]
		if (c.Type == corev1.PodReady || c.Type == corev1.ContainersReady) && c.Status == corev1.ConditionTrue {
			c.Status, c.Reason, c.LastTransitionTime = corev1.ConditionFalse, "MachineRestarted", metav1.Now()
			changed = true
		}
	}
	return changed
}

// runningContainers returns the IDs of the containers that run.
func runningContainers(ctx context.Context, runtime *containerd.Client) (map[string]bool, error) {
	all, err := runtime.Containers(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	out := map[string]bool{}
	for _, c := range all {
		task, err := c.Task(ctx, nil)
		if err != nil {
			continue // it has none: nothing runs
		}
		if status, err := task.Status(ctx); err == nil && status.Status == containerd.Running {
			out[c.ID()] = true
		}
	}
	return out, nil
}
