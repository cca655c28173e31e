package control

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

var then, later = metav1.Unix(1, 0), metav1.Unix(int64(time.Hour), 0)

func accepted(s metav1.ConditionStatus, t metav1.Time) []metav1.Condition {
	return []metav1.Condition{{Type: "Accepted", Status: s, LastTransitionTime: t}}
}

// Only what changed is dated anew, also when listeners come, go and move.
func TestMergeListeners(t *testing.T) {
	listener := func(name string, c []metav1.Condition) gatewayv1.ListenerStatus {
		return gatewayv1.ListenerStatus{Name: gatewayv1.SectionName(name), Conditions: c}
	}
	old := []gatewayv1.ListenerStatus{
		listener("same", accepted("True", then)), listener("changed", accepted("True", then)), listener("gone", accepted("True", then)),
	}
	got := []gatewayv1.ListenerStatus{
		listener("new", accepted("True", metav1.Time{})), listener("changed", accepted("False", metav1.Time{})), listener("same", accepted("True", metav1.Time{})),
	}
	mergeListeners(old, got, ofListener, later)
	want := []gatewayv1.ListenerStatus{
		listener("new", accepted("True", later)), listener("changed", accepted("False", later)), listener("same", accepted("True", then)),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("listeners (-want +got):\n%s", diff)
	}
	set := []gatewayv1.ListenerEntryStatus{{Name: "same", Conditions: accepted("True", metav1.Time{})}}
	mergeListeners([]gatewayv1.ListenerEntryStatus{{Name: "same", Conditions: accepted("True", then)}}, set, ofSetListener, later)
	if diff := cmp.Diff(accepted("True", then), set[0].Conditions); diff != "" {
		t.Errorf("listeners of a ListenerSet (-want +got):\n%s", diff)
	}
}

// What other controllers wrote stays theirs.
func TestMergeOurs(t *testing.T) {
	parent := func(controller, gateway string, c []metav1.Condition) gatewayv1.RouteParentStatus {
		return gatewayv1.RouteParentStatus{
			ControllerName: gatewayv1.GatewayController(controller), Conditions: c,
			ParentRef: gatewayv1.ParentReference{Name: gatewayv1.ObjectName(gateway)},
		}
	}
	old := []gatewayv1.RouteParentStatus{
		parent("us", "a", accepted("True", then)), parent("them", "a", accepted("False", then)), parent("us", "gone", accepted("True", then)),
	}
	ours := []gatewayv1.RouteParentStatus{
		parent("us", "b", accepted("True", metav1.Time{})), parent("us", "a", accepted("True", metav1.Time{})),
	}
	got := mergeOurs("us", old, ours, ofParent, later)
	want := []gatewayv1.RouteParentStatus{
		parent("them", "a", accepted("False", then)), parent("us", "b", accepted("True", later)), parent("us", "a", accepted("True", then)),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("parents (-want +got):\n%s", diff)
	}
	if !ours[1].Conditions[0].LastTransitionTime.IsZero() {
		t.Error("the status it was given was changed: others read it, too")
	}
	if got := mergeOurs("us", old[:1], nil, ofParent, later); got == nil || len(got) > 0 {
		t.Errorf("without any of ours it returns %v, want an empty list", got)
	}
	// A route without parents is written as [], which is not the same as null.
	policy := mergeOurs("us", nil, []gatewayv1.PolicyAncestorStatus{{ControllerName: "us", Conditions: accepted("True", then)}}, ofAncestor, later)
	if diff := cmp.Diff(accepted("True", later), policy[0].Conditions); diff != "" {
		t.Errorf("ancestors (-want +got):\n%s", diff)
	}
}
