package install

import (
	"cmp"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

func selector(match map[string]string) labels.Selector { return labels.SelectorFromSet(match) }

// readiness tells whether what was applied does its job, and what is missing.
func (w *worker) readiness(watches *watches) (v1alpha1.Phase, string) {
	var waiting string
	switch b := w.battery; {
	case w.name == battery.SystemBattery:
		waiting = w.rollouts(watches)
	case b.Run == nil:
	case b.Where == battery.Own:
		waiting = w.rollouts(watches)
	default:
		workload := battery.ControllersWorkload
		if b.Where == battery.EveryNode {
			workload = battery.NodeWorkload
		}
		pods := watches.pods(battery.SystemNamespace, battery.Selector(workload))
		shared := w.in.workers[battery.SystemBattery].shared(w.plan)
		if b.Where == battery.EveryNode {
			d := watches.daemonSet(battery.SystemNamespace, workload)
			waiting = runsEverywhere(b.Name, d, pods, shared)
		} else {
			waiting = runsSomewhere(b.Name, pods, shared)
		}
	}
	if waiting != "" {
		return v1alpha1.PhaseStarting, waiting
	}
	return v1alpha1.PhaseReady, ""
}

// shared returns the fingerprint that the pods of the shared workloads have
// when they know all settings of the plan; "" while that is not known.
func (w *worker) shared(p *plan) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sitePlan != p {
		return ""
	}
	return w.site
}

// rollouts returns what the workloads that were applied wait for, "" when all
// are rolled out.
func (w *worker) rollouts(watches *watches) string {
	refs := make([]ref, 0, len(w.workloads))
	for r := range w.workloads {
		refs = append(refs, r)
	}
	slices.SortFunc(refs, func(a, b ref) int { return cmp.Compare(a.Name, b.Name) })
	for _, r := range refs {
		var waiting string
		match := battery.Selector(r.Name)
		switch r.Kind {
		case "Deployment":
			waiting = deploymentWaits(watches.deployment(r.Namespace, r.Name), w.workloads[r])
		case "StatefulSet":
			waiting = statefulSetWaits(watches.statefulSet(r.Namespace, r.Name), w.workloads[r])
		case "DaemonSet":
			waiting = daemonSetWaits(watches.daemonSet(r.Namespace, r.Name), w.workloads[r])
		}
		if waiting != "" {
			return describe(fmt.Sprintf("%s of %s", waiting, r), watches.pods(r.Namespace, match))
		}
	}
	return ""
}

// deploymentWaits returns how far the rollout of a generation is, "" when it is
// done: every copy is of that generation, and available.
func deploymentWaits(d *appsv1.Deployment, generation int64) string {
	if d == nil || d.Generation < generation || d.Status.ObservedGeneration < d.Generation {
		return "waits for the rollout"
	}
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	have := min(d.Status.UpdatedReplicas, d.Status.AvailableReplicas)
	if have < want || d.Status.Replicas > d.Status.UpdatedReplicas {
		return fmt.Sprintf("%d/%d copies", have, want)
	}
	return ""
}

func statefulSetWaits(s *appsv1.StatefulSet, generation int64) string {
	if s == nil || s.Generation < generation || s.Status.ObservedGeneration < s.Generation {
		return "waits for the rollout"
	}
	want := int32(1)
	if s.Spec.Replicas != nil {
		want = *s.Spec.Replicas
	}
	if have := min(s.Status.UpdatedReplicas, s.Status.AvailableReplicas); have < want {
		return fmt.Sprintf("%d/%d copies", have, want)
	}
	return ""
}

func daemonSetWaits(d *appsv1.DaemonSet, generation int64) string {
	if d == nil || d.Generation < generation || d.Status.ObservedGeneration < d.Generation {
		return "waits for the rollout"
	}
	want := d.Status.DesiredNumberScheduled
	have := min(d.Status.UpdatedNumberScheduled, d.Status.NumberAvailable)
	if want == 0 {
		return "waits for a machine"
	}
	if have < want {
		return fmt.Sprintf("%d/%d machines", have, want)
	}
	return ""
}

// runsSomewhere returns what a battery of the shared controllers waits for, ""
// when a pod with these settings reports that it does its job.
func runsSomewhere(name string, pods []*corev1.Pod, site string) string {
	waiting := "waits for " + battery.ControllersWorkload
	for _, p := range pods {
		if current(p, site) && reports(p, name) {
			return ""
		}
		if current(p, site) && hears(p, name) {
			waiting = fmt.Sprintf("not ready yet: kubectl logs -n %s %s", p.Namespace, p.Name)
		}
	}
	return describe(waiting, pods)
}

// runsEverywhere is the same for a battery of every machine.
func runsEverywhere(name string, d *appsv1.DaemonSet, pods []*corev1.Pod, site string) string {
	if d == nil || d.Status.ObservedGeneration < d.Generation || d.Status.DesiredNumberScheduled == 0 {
		return "waits for " + battery.NodeWorkload
	}
	have := int32(0)
	for _, p := range pods {
		if current(p, site) && reports(p, name) {
			have++
		}
	}
	if have >= d.Status.DesiredNumberScheduled {
		return ""
	}
	return describe(fmt.Sprintf("%d/%d machines", have, d.Status.DesiredNumberScheduled), pods)
}

// current tells whether the pod runs, with the settings in force.
func current(p *corev1.Pod, site string) bool {
	return p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning && site != "" && p.Annotations[battery.AnnotationSite] == site
}

// reports tells whether the pod says that a battery does its job in it.
func reports(p *corev1.Pod, name string) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodConditionType(battery.ConditionOf(name)) && c.Status == corev1.ConditionTrue
	})
}

// hears tells whether the pod has the battery, ready or not.
func hears(p *corev1.Pod, name string) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodConditionType(battery.ConditionOf(name))
	})
}

// describe adds what is wrong with the first pod in trouble.
func describe(waiting string, pods []*corev1.Pod) string {
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	for _, p := range pods {
		if why := trouble(p); why != "" && p.DeletionTimestamp == nil {
			return fmt.Sprintf("%s: pod %s: %s", waiting, p.Name, why)
		}
	}
	return waiting
}

// trouble returns what keeps a pod from running, in the words of whoever knows
// best: the scheduler, then the machine. "" is a pod that is fine, or still on
// its way.
func trouble(p *corev1.Pod) string {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.Message
		}
	}
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if wait := s.State.Waiting; wait != nil && wait.Reason != "ContainerCreating" && wait.Reason != "PodInitializing" {
			if end := s.LastTerminationState.Terminated; end != nil {
				return fmt.Sprintf("%s: the last run ended with %s, exit code %d: kubectl logs -n %s %s -c %s --previous",
					wait.Reason, end.Reason, end.ExitCode, p.Namespace, p.Name, s.Name)
			}
			return fmt.Sprintf("%s: %s", wait.Reason, wait.Message)
		}
		if end := s.State.Terminated; end != nil && end.ExitCode != 0 {
			return fmt.Sprintf("ended with %s, exit code %d: kubectl logs -n %s %s -c %s", end.Reason, end.ExitCode, p.Namespace, p.Name, s.Name)
		}
	}
	return ""
}

// fingerprint returns the settings' fingerprint on the pods of a rendering, ""
// when it has no pods.
func fingerprint(objs []kube.Object) string {
	for _, o := range objs {
		switch o := o.(type) {
		case *appsv1.Deployment:
			return o.Spec.Template.Annotations[battery.AnnotationSite]
		case *appsv1.DaemonSet:
			return o.Spec.Template.Annotations[battery.AnnotationSite]
		case *appsv1.StatefulSet:
			return o.Spec.Template.Annotations[battery.AnnotationSite]
		}
	}
	return ""
}
