package control

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/translate"
)

// Statuses have lists whose entries have conditions, in types that have nothing
// in common but their fields. These take one apart each.

func ofListener(l *gatewayv1.ListenerStatus) (gatewayv1.SectionName, *[]metav1.Condition) {
	return l.Name, &l.Conditions
}

func ofSetListener(l *gatewayv1.ListenerEntryStatus) (gatewayv1.SectionName, *[]metav1.Condition) {
	return l.Name, &l.Conditions
}

func ofParent(p *gatewayv1.RouteParentStatus) (gatewayv1.GatewayController, gatewayv1.ParentReference, *[]metav1.Condition) {
	return p.ControllerName, p.ParentRef, &p.Conditions
}

func ofAncestor(a *gatewayv1.PolicyAncestorStatus) (gatewayv1.GatewayController, gatewayv1.ParentReference, *[]metav1.Condition) {
	return a.ControllerName, a.AncestorRef, &a.Conditions
}

// mergeListeners gives what changed in the conditions of listeners the time
// now, and what did not the time it has in the old listener of that name.
func mergeListeners[L any](old, listeners []L, of func(*L) (gatewayv1.SectionName, *[]metav1.Condition), now metav1.Time) {
	before := make(map[gatewayv1.SectionName][]metav1.Condition, len(old))
	for i := range old {
		name, conditions := of(&old[i])
		before[name] = *conditions
	}
	for i := range listeners {
		name, conditions := of(&listeners[i])
		*conditions = translate.MergeConditions(before[name], *conditions, now)
	}
}

// mergeOurs returns the entries of other controllers in old, and then ours with
// the times that their conditions have in old where they did not change. The
// result is never nil, and ours is not changed.
func mergeOurs[E any](controller gatewayv1.GatewayController, old, ours []E, of func(*E) (gatewayv1.GatewayController, gatewayv1.ParentReference, *[]metav1.Condition), now metav1.Time) []E {
	out := slices.DeleteFunc(append([]E{}, old...), func(e E) bool {
		owner, _, _ := of(&e)
		return owner == controller
	})
	for _, e := range ours {
		_, ref, conditions := of(&e)
		i := slices.IndexFunc(old, func(o E) bool {
			owner, other, _ := of(&o)
			return owner == controller && equality.Semantic.DeepEqual(other, ref)
		})
		var before []metav1.Condition
		if i >= 0 {
			_, _, was := of(&old[i])
			before = *was
		}
		// A new list: e shares its conditions with ours.
		*conditions = translate.MergeConditions(before, *conditions, now)
		out = append(out, e)
	}
	return out
}
