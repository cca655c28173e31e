package apps

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// observed is what the cluster has of an App; what is missing is nil.
type observed struct {
	deployment *appsv1.Deployment
	pods       []corev1.Pod
	routes     []*gatewayv1.HTTPRoute
	listeners  *gatewayv1.ListenerSet
}

// finding is one condition before it is written: its status, and the reason and
// message that explain it.
type finding struct {
	status          metav1.ConditionStatus
	reason, message string
}

// judge writes into app's status what o shows. It is pure but for app.
func judge(app *v1alpha1.App, o observed) {
	st := &app.Status
	st.Replicas, st.ReadyReplicas = 0, 0
	if d := o.deployment; d != nil {
		st.Replicas, st.ReadyReplicas = d.Status.Replicas, d.Status.ReadyReplicas
	}
	routed := judgeRoutes(o)
	progress := judgeRollout(app, o)
	complete := progress.status == metav1.ConditionFalse && progress.reason != v1alpha1.ReasonRefused && progress.reason != v1alpha1.ReasonDeadline
	ready := finding{metav1.ConditionTrue, v1alpha1.ReasonReady, "every copy is healthy and the URL leads to them"}
	switch {
	case !complete:
		ready = finding{metav1.ConditionFalse, progress.reason, progress.message}
	case routed.status != metav1.ConditionTrue:
		ready = finding{metav1.ConditionFalse, routed.reason, routed.message}
	case progress.reason == v1alpha1.ReasonStopped:
		ready = finding{metav1.ConditionTrue, progress.reason, progress.message}
	}
	write(app, v1alpha1.ConditionRouted, routed)
	write(app, v1alpha1.ConditionProgressing, progress)
	write(app, v1alpha1.ConditionReady, ready)
}

// refuse writes into app's status that nothing is done for its spec, and why.
// What ran before goes on.
func refuse(app *v1alpha1.App, reason, message string) {
	f := finding{metav1.ConditionFalse, reason, message}
	if reason == v1alpha1.ReasonHostTaken || reason == v1alpha1.ReasonHostForbidden {
		write(app, v1alpha1.ConditionRouted, f)
	}
	write(app, v1alpha1.ConditionProgressing, f)
	write(app, v1alpha1.ConditionReady, f)
}

func write(app *v1alpha1.App, kind string, f finding) {
	meta.SetStatusCondition(&app.Status.Conditions, metav1.Condition{
		Type: kind, Status: f.status, Reason: f.reason, Message: f.message, ObservedGeneration: app.Generation,
	})
}

// judgeRoutes tells whether the gateway took every route, and every listener of
// the App's own.
func judgeRoutes(o observed) finding {
	waiting := finding{metav1.ConditionFalse, v1alpha1.ReasonWaitingForGateway, "the gateway has not taken the route yet"}
	if len(o.routes) == 0 {
		return waiting
	}
	if set := o.listeners; set != nil {
		for _, l := range set.Status.Listeners {
			for _, kind := range []string{string(gatewayv1.ListenerEntryConditionAccepted), string(gatewayv1.ListenerEntryConditionResolvedRefs), string(gatewayv1.ListenerEntryConditionProgrammed)} {
				c := meta.FindStatusCondition(l.Conditions, kind)
				if c == nil || c.Status == metav1.ConditionTrue {
					continue
				}
				_, host, _ := strings.Cut(string(l.Name), "-")
				if c.Reason == string(gatewayv1.ListenerReasonInvalidCertificateRef) {
					return finding{metav1.ConditionFalse, v1alpha1.ReasonWaitingForCertificate, fmt.Sprintf(
						"%s has no certificate yet: see why with: kubectl describe certificate -n %s", host, set.Namespace)}
				}
				return finding{metav1.ConditionFalse, v1alpha1.ReasonWaitingForGateway, fmt.Sprintf("%s: %s: %s", host, c.Reason, c.Message)}
			}
		}
		if len(set.Status.Listeners) < len(set.Spec.Listeners) {
			return waiting
		}
	}
	for _, route := range o.routes {
		for _, ref := range route.Spec.ParentRefs {
			i := slices.IndexFunc(route.Status.Parents, func(p gatewayv1.RouteParentStatus) bool {
				return sameParent(p.ParentRef, ref, route.Namespace)
			})
			if i < 0 {
				return waiting
			}
			for _, kind := range []string{string(gatewayv1.RouteConditionAccepted), string(gatewayv1.RouteConditionResolvedRefs)} {
				c := meta.FindStatusCondition(route.Status.Parents[i].Conditions, kind)
				switch {
				case c == nil || c.ObservedGeneration < route.Generation:
					return waiting
				case c.Status != metav1.ConditionTrue:
					return finding{metav1.ConditionFalse, v1alpha1.ReasonWaitingForGateway, fmt.Sprintf("%s: %s", c.Reason, c.Message)}
				}
			}
		}
	}
	return finding{metav1.ConditionTrue, v1alpha1.ReasonReady, "the gateway leads every host name here"}
}

// sameParent compares what a route asked for with what a gateway answered
// about, which may leave out or fill in defaults.
func sameParent(a, b gatewayv1.ParentReference, namespace string) bool {
	kind := func(r gatewayv1.ParentReference) string { return string(deref(r.Kind, "Gateway")) }
	ns := func(r gatewayv1.ParentReference) string {
		return string(deref(r.Namespace, gatewayv1.Namespace(namespace)))
	}
	return a.Name == b.Name && kind(a) == kind(b) && ns(a) == ns(b) && deref(a.SectionName, "") == deref(b.SectionName, "")
}

func deref[T any](p *T, or T) T {
	if p == nil {
		return or
	}
	return *p
}

// judgeRollout tells how far the App's Deployment is.
func judgeRollout(app *v1alpha1.App, o observed) finding {
	d := o.deployment
	if d == nil || d.Status.ObservedGeneration < d.Generation {
		return finding{metav1.ConditionTrue, v1alpha1.ReasonRollingOut, "the rollout begins"}
	}
	want := deref(d.Spec.Replicas, 1)
	st := d.Status
	done := st.UpdatedReplicas == want && st.Replicas == want && st.AvailableReplicas == want
	switch {
	case done && want == 0:
		return finding{metav1.ConditionFalse, v1alpha1.ReasonStopped,
			"no copy runs, as asked: start it with: " + command(app, "scale") + " 1"}
	case done:
		return finding{metav1.ConditionFalse, v1alpha1.ReasonComplete, fmt.Sprintf("%s healthy", copies(want))}
	}
	serving := ""
	if readyCopies(o, false) > 0 {
		serving = "; the previous revision keeps serving"
	}
	for _, c := range st.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return finding{metav1.ConditionFalse, v1alpha1.ReasonRefused, shorten(c.Message) + serving}
		}
	}
	reason, message := v1alpha1.ReasonRollingOut, fmt.Sprintf("%d of %s healthy", min(readyCopies(o, true), want), copies(want))
	t, troubled := newestTrouble(app, o)
	if troubled {
		reason, message = t.reason, t.message
	}
	status := metav1.ConditionTrue
	for _, c := range st.Conditions {
		if c.Type == appsv1.DeploymentProgressing && c.Reason == "ProgressDeadlineExceeded" {
			status = metav1.ConditionFalse
			if !troubled {
				reason, message = v1alpha1.ReasonDeadline, "the new copies did not become healthy in time: "+command(app, "logs")
			}
		}
	}
	return finding{status, reason, message + serving}
}

// readyCopies counts the pods that take requests: those of the present
// rendering, or those of former ones.
func readyCopies(o observed, present bool) int32 {
	n := int32(0)
	for i := range o.pods {
		p := &o.pods[i]
		is := p.Labels[v1alpha1.LabelTemplate] == o.deployment.Spec.Template.Labels[v1alpha1.LabelTemplate]
		if is != present || p.DeletionTimestamp != nil {
			continue
		}
		if slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}) {
			n++
		}
	}
	return n
}

func copies(n int32) string {
	if n == 1 {
		return "1 copy"
	}
	return fmt.Sprintf("%d copies", n)
}

// command returns the command line that does verb to the app.
func command(app *v1alpha1.App, verb string) string {
	line := "emerald app " + verb + " " + app.Name
	if app.Namespace != "default" {
		line += " --namespace " + app.Namespace
	}
	return line
}

// trouble is what keeps a pod from taking requests.
type trouble struct{ reason, message string }

// newestTrouble returns the trouble of the App's current pods, the most telling
// first.
func newestTrouble(app *v1alpha1.App, o observed) (trouble, bool) {
	current := o.deployment.Spec.Template.Labels[v1alpha1.LabelTemplate]
	var found []trouble
	for i := range o.pods {
		p := &o.pods[i]
		if p.DeletionTimestamp != nil || p.Labels[v1alpha1.LabelTemplate] != current {
			continue
		}
		if t, ok := troubleOf(app, p); ok {
			found = append(found, t)
		}
	}
	if len(found) == 0 {
		return trouble{}, false
	}
	return slices.MinFunc(found, func(a, b trouble) int {
		return cmp.Or(cmp.Compare(len(b.message), len(a.message)), cmp.Compare(a.message, b.message))
	}), true
}

// troubleOf explains why the pod does not run. A pod that merely has not
// started yet, or is not healthy yet, has no trouble.
func troubleOf(app *v1alpha1.App, p *corev1.Pod) (trouble, bool) {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
			return trouble{c.Reason, "no machine has room: " + shorten(c.Message)}, true
		}
	}
	if p.Status.Phase == corev1.PodFailed {
		return trouble{cmp.Or(p.Status.Reason, "Failed"), cmp.Or(shorten(p.Status.Message), "the pod failed") + ": " + command(app, "logs")}, true
	}
	for _, c := range p.Status.ContainerStatuses {
		switch {
		case c.State.Waiting != nil && c.State.Waiting.Reason == "CrashLoopBackOff":
			return trouble{"CrashLoopBackOff", fmt.Sprintf("the app ended %d times, last with %s: %s",
				c.RestartCount+1, ending(c.LastTerminationState.Terminated), command(app, "logs"))}, true
		case c.State.Terminated != nil:
			return trouble{"Exited", fmt.Sprintf("the app ended with %s: %s", ending(c.State.Terminated), command(app, "logs"))}, true
		case c.State.Waiting != nil && !slices.Contains([]string{"", "ContainerCreating", "PodInitializing"}, c.State.Waiting.Reason):
			return trouble{c.State.Waiting.Reason, shorten(c.State.Waiting.Message)}, true
		}
	}
	return trouble{}, false
}

// ending says how a container ended.
func ending(t *corev1.ContainerStateTerminated) string {
	switch {
	case t == nil:
		return "an unknown result"
	case t.Reason == "OOMKilled":
		return "no memory left (OOMKilled): give it more with --memory"
	case t.Signal != 0:
		return fmt.Sprintf("signal %d", t.Signal)
	case t.ExitCode == 0:
		return "exit code 0, but an app has to keep running"
	}
	return fmt.Sprintf("exit code %d", t.ExitCode)
}

// shorten makes one line of a message and keeps it within what a condition is
// for.
func shorten(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 600 {
		s = strings.ToValidUTF8(s[:600], "") + "…"
	}
	return s
}

// learnUser returns what the kubelet's refusal tells about the user of the
// App's image, if it refused one.
func learnUser(app *v1alpha1.App, pods []corev1.Pod) (v1alpha1.ImageUserKind, bool) {
	for _, p := range pods {
		for _, c := range p.Spec.Containers {
			if c.Image != app.Spec.Image {
				continue
			}
			i := slices.IndexFunc(p.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.Name == c.Name })
			if i < 0 || p.Status.ContainerStatuses[i].State.Waiting == nil {
				continue
			}
			// The words are those of verifyRunAsNonRoot in the kubelet.
			switch message := p.Status.ContainerStatuses[i].State.Waiting.Message; {
			case strings.Contains(message, "image will run as root"):
				return v1alpha1.UserRoot, true
			case strings.Contains(message, "image has non-numeric user"):
				return v1alpha1.UserNamed, true
			}
		}
	}
	return "", false
}

// userOf returns the user kind of the App's image as far as it is known: from
// whoever wrote the App and read the image, or from an earlier refusal by the
// kubelet. An image nothing is known about is taken to be good until the kubelet
// says otherwise.
func userOf(app *v1alpha1.App) v1alpha1.ImageUserKind {
	if u := app.Status.ImageUser; u != nil && u.Image == app.Spec.Image {
		return u.Kind
	}
	kind, image, _ := strings.Cut(app.Annotations[v1alpha1.AnnotationImageUser], " ")
	if image == app.Spec.Image && slices.Contains([]string{string(v1alpha1.UserNamed), string(v1alpha1.UserRoot)}, kind) {
		return v1alpha1.ImageUserKind(kind)
	}
	return v1alpha1.UserNumeric
}
