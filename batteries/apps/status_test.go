package apps

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery/batterytest"
)

// scene returns what the cluster has of an App that is just applied.
func scene(t *testing.T, app *v1alpha1.App) *observed {
	t.Helper()
	objs, err := render(app, v1alpha1.UserNumeric, batterytest.Site(&Battery))
	if err != nil {
		t.Fatal(err)
	}
	o := &observed{}
	for _, obj := range objs {
		switch obj := obj.(type) {
		case *appsv1.Deployment:
			obj.Generation = 2
			obj.Status.ObservedGeneration = 1
			o.deployment = obj
		case *gatewayv1.HTTPRoute:
			obj.Generation = 1
			o.routes = append(o.routes, obj)
		case *gatewayv1.ListenerSet:
			o.listeners = obj
		}
	}
	return o
}

func (o *observed) counts(replicas, updated, available int32) *observed {
	o.deployment.Status = appsv1.DeploymentStatus{
		ObservedGeneration: o.deployment.Generation, Replicas: replicas, UpdatedReplicas: updated,
		AvailableReplicas: available, ReadyReplicas: available, Conditions: o.deployment.Status.Conditions,
	}
	return o
}

func (o *observed) condition(kind appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string) *observed {
	o.deployment.Status.Conditions = append(o.deployment.Status.Conditions,
		appsv1.DeploymentCondition{Type: kind, Status: status, Reason: reason, Message: message})
	return o
}

func (o *observed) routed(status metav1.ConditionStatus, generation int64) *observed {
	for _, r := range o.routes {
		r.Status.Parents = nil
		for _, ref := range r.Spec.ParentRefs {
			parent := gatewayv1.RouteParentStatus{ParentRef: ref, ControllerName: "emerald.dev/gateway"}
			for _, kind := range []string{"Accepted", "ResolvedRefs"} {
				meta.SetStatusCondition(&parent.Conditions, metav1.Condition{
					Type: kind, Status: status, Reason: "Because", Message: "of it", ObservedGeneration: generation,
				})
			}
			r.Status.Parents = append(r.Status.Parents, parent)
		}
	}
	return o
}

// former adds a pod of an older revision that takes requests.
func (o *observed) former() *observed {
	o.pods = append(o.pods, corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{v1alpha1.LabelTemplate: "former"}},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	})
	return o
}

// pod adds a pod of the current revision whose app container is in this state.
func (o *observed) pod(state corev1.ContainerState, restarts int32, last corev1.ContainerState) *observed {
	o.pods = append(o.pods, corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Labels: o.deployment.Spec.Template.Labels},
		Spec:       o.deployment.Spec.Template.Spec,
		Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{
			{Name: "app", State: state, RestartCount: restarts, LastTerminationState: last},
		}},
	})
	return o
}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

func exited(code int32, reason string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason}}
}

func TestJudge(t *testing.T) {
	tests := map[string]struct {
		replicas int32
		see      func(*observed)
		// want are the conditions as Type=Status/Reason.
		want    string
		message string // a part of Ready's
	}{
		"the Deployment is not looked at yet, though its old counts are good": {
			1, func(o *observed) {
				o.counts(1, 1, 1).routed("True", 1)
				o.deployment.Status.ObservedGeneration--
			}, "Ready=False/RollingOut Progressing=True/RollingOut Routed=True/Ready", "begins"},
		"half done": {
			2, func(o *observed) { o.counts(3, 1, 2).routed("True", 1).former() },
			"Ready=False/RollingOut Progressing=True/RollingOut Routed=True/Ready", "the previous revision keeps serving"},
		"done": {
			2, func(o *observed) { o.counts(2, 2, 2).routed("True", 1) },
			"Ready=True/Ready Progressing=False/Complete Routed=True/Ready", ""},
		"done but no gateway": {
			1, func(o *observed) { o.counts(1, 1, 1) },
			"Ready=False/WaitingForGateway Progressing=False/Complete Routed=False/WaitingForGateway", "gateway"},
		"done but the gateway saw an older route": {
			1, func(o *observed) { o.counts(1, 1, 1).routed("True", 0) },
			"Ready=False/WaitingForGateway Progressing=False/Complete Routed=False/WaitingForGateway", ""},
		"the gateway refuses": {
			1, func(o *observed) { o.counts(1, 1, 1).routed("False", 1) },
			"Ready=False/WaitingForGateway Progressing=False/Complete Routed=False/WaitingForGateway", "Because: of it"},
		"stopped": {
			0, func(o *observed) { o.counts(0, 0, 0).routed("True", 1) },
			"Ready=True/Stopped Progressing=False/Stopped Routed=True/Ready", "emerald app scale web 1"},
		"quota": {
			1, func(o *observed) {
				o.counts(1, 0, 1).routed("True", 1).former().condition("ReplicaFailure", "True", "FailedCreate", "pods is forbidden:\n exceeded quota")
			}, "Ready=False/Refused Progressing=False/Refused Routed=True/Ready", "pods is forbidden: exceeded quota; the previous"},
		"crashing": {
			1, func(o *observed) {
				o.counts(2, 1, 1).routed("True", 1).former().pod(waiting("CrashLoopBackOff", "back-off"), 3, exited(7, "Error"))
			}, "Ready=False/CrashLoopBackOff Progressing=True/CrashLoopBackOff Routed=True/Ready", "ended 4 times, last with exit code 7: emerald app logs web; the previous"},
		"out of memory": {
			1, func(o *observed) { o.counts(1, 1, 0).pod(exited(137, "OOMKilled"), 0, corev1.ContainerState{}) },
			"Ready=False/Exited Progressing=True/Exited Routed=False/WaitingForGateway", "--memory"},
		"no such image": {
			1, func(o *observed) {
				o.counts(1, 1, 0).pod(waiting("ImagePullBackOff", "not found"), 0, corev1.ContainerState{})
			}, "Ready=False/ImagePullBackOff Progressing=True/ImagePullBackOff Routed=False/WaitingForGateway", "not found"},
		"only starting": {
			1, func(o *observed) {
				o.counts(1, 1, 0).pod(waiting("ContainerCreating", ""), 0, corev1.ContainerState{})
			}, "Ready=False/RollingOut Progressing=True/RollingOut Routed=False/WaitingForGateway", "0 of 1 copy healthy"},
		"too late": {
			1, func(o *observed) {
				o.counts(1, 1, 0).condition("Progressing", "False", "ProgressDeadlineExceeded", "")
			}, "Ready=False/DeadlineExceeded Progressing=False/DeadlineExceeded Routed=False/WaitingForGateway", "in time"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			app := appAt("default", "web", 0)
			app.Spec.Replicas = &tt.replicas
			o := scene(t, app)
			tt.see(o)
			judge(app, *o)
			var got []string
			for _, kind := range []string{"Ready", "Progressing", "Routed"} {
				c := meta.FindStatusCondition(app.Status.Conditions, kind)
				if c == nil {
					t.Fatalf("no condition %s", kind)
				}
				got = append(got, kind+"="+string(c.Status)+"/"+c.Reason)
				if kind == "Ready" && !strings.Contains(c.Message, tt.message) {
					t.Errorf("Ready says %q; want it to say %q", c.Message, tt.message)
				}
			}
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestOldPodsHaveNoSay(t *testing.T) {
	app := appAt("default", "web", 0)
	o := scene(t, app).counts(2, 1, 1).pod(waiting("CrashLoopBackOff", ""), 9, exited(1, "Error"))
	o.pods[0].Labels = map[string]string{v1alpha1.LabelTemplate: "older"}
	if tr, ok := newestTrouble(app, *o); ok {
		t.Errorf("a pod of an older revision is blamed: %v", tr)
	}
}

func TestCustomDomainWaitsForItsCertificate(t *testing.T) {
	app := appAt("default", "web", 0, "www.example.com")
	o := scene(t, app).counts(1, 1, 1).routed("True", 1)
	listeners := func(status metav1.ConditionStatus) {
		o.listeners.Status.Listeners = nil
		for _, l := range o.listeners.Spec.Listeners {
			o.listeners.Status.Listeners = append(o.listeners.Status.Listeners, gatewayv1.ListenerEntryStatus{
				Name: l.Name, Conditions: []metav1.Condition{{Type: "ResolvedRefs", Status: status, Reason: "InvalidCertificateRef"}},
			})
		}
	}
	listeners(metav1.ConditionFalse)
	if got := judgeRoutes(*o); got.reason != v1alpha1.ReasonWaitingForCertificate || !strings.HasPrefix(got.message, "www.example.com has no certificate yet") {
		t.Errorf("got %+v", got)
	}
	listeners(metav1.ConditionTrue)
	if got := judgeRoutes(*o); got.status != metav1.ConditionTrue {
		t.Errorf("got %+v", got)
	}
}

func TestUserIsLearned(t *testing.T) {
	tests := map[string]struct {
		message string
		want    v1alpha1.ImageUserKind
	}{
		"root":  {`container has runAsNonRoot and image will run as root (pod: "p", container: app)`, v1alpha1.UserRoot},
		"named": {`container has runAsNonRoot and image has non-numeric user (nginx), cannot verify user is non-root (pod: "p", container: app)`, v1alpha1.UserNamed},
		"other": {`secret "x" not found`, v1alpha1.UserNumeric},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			app := appAt("default", "web", 0)
			o := scene(t, app).pod(waiting("CreateContainerConfigError", tt.message), 0, corev1.ContainerState{})
			if kind, ok := learnUser(app, o.pods); ok {
				app.Status.ImageUser = &v1alpha1.ImageUser{Image: app.Spec.Image, Kind: kind}
			}
			if got := userOf(app); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			app.Spec.Image = "another"
			if got := userOf(app); got != v1alpha1.UserNumeric {
				t.Errorf("what was learned of one image is believed of another: %s", got)
			}
		})
	}
}

func TestUserIsTold(t *testing.T) {
	app := appAt("default", "web", 0)
	for note, want := range map[string]v1alpha1.ImageUserKind{
		"Root " + app.Spec.Image:  v1alpha1.UserRoot,
		"Named " + app.Spec.Image: v1alpha1.UserNamed,
		"Root another":            v1alpha1.UserNumeric,
		"Root":                    v1alpha1.UserNumeric,
		"God " + app.Spec.Image:   v1alpha1.UserNumeric,
		"":                        v1alpha1.UserNumeric,
	} {
		app.Annotations = map[string]string{v1alpha1.AnnotationImageUser: note}
		if got := userOf(app); got != want {
			t.Errorf("%q: got %s, want %s", note, got, want)
		}
	}
}
