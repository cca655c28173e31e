package translate

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// SupportedFeatures are the features of the Gateway API that this controller
// has beyond the core, and passes the conformance tests of.
var SupportedFeatures = []features.FeatureName{
	features.SupportBackendTLSPolicy,
	features.SupportBackendTLSPolicySANValidation,
	features.SupportGRPCRoute,
	features.SupportGRPCRouteNamedRouteRule,
	features.SupportGateway,
	features.SupportGatewayAddressEmpty,
	features.SupportGatewayHTTPListenerIsolation,
	features.SupportGatewayHTTPSListenerDetectMisdirectedRequests,
	features.SupportGatewayPort8080,
	features.SupportHTTPRoute,
	features.SupportHTTPRoute303RedirectStatusCode,
	features.SupportHTTPRoute307RedirectStatusCode,
	features.SupportHTTPRoute308RedirectStatusCode,
	features.SupportHTTPRouteBackendProtocolH2C,
	features.SupportHTTPRouteBackendProtocolWebSocket,
	features.SupportHTTPRouteBackendRequestHeaderModification,
	features.SupportHTTPRouteBackendTimeout,
	features.SupportHTTPRouteCORS,
	features.SupportHTTPRouteDestinationPortMatching,
	features.SupportHTTPRouteHostRewrite,
	features.SupportHTTPRouteMethodMatching,
	features.SupportHTTPRouteNamedRouteRule,
	features.SupportHTTPRouteParentRefPort,
	features.SupportHTTPRoutePathRedirect,
	features.SupportHTTPRoutePathRewrite,
	features.SupportHTTPRoutePortRedirect,
	features.SupportHTTPRouteQueryParamMatching,
	features.SupportHTTPRouteRequestMirror,
	features.SupportHTTPRouteRequestMultipleMirrors,
	features.SupportHTTPRouteRequestPercentageMirror,
	features.SupportHTTPRouteRequestTimeout,
	features.SupportHTTPRouteResponseHeaderModification,
	features.SupportHTTPRouteSchemeRedirect,
	features.SupportListenerSet,
	features.SupportReferenceGrant,
}

// writeStatuses collects the statuses of everything but routes.
func (t *translation) writeStatuses() {
	for _, c := range t.objects.Classes {
		if c.Spec.ControllerName == t.Controller {
			t.result.Status.Classes = append(t.result.Status.Classes, StatusOf[*gatewayv1.GatewayClass, gatewayv1.GatewayClassStatus]{c, classStatus(c)})
		}
	}
	for _, g := range slices.SortedFunc(maps.Values(t.gateways), func(a, b *gateway) int { return byAge(a.object, b.object) }) {
		t.result.Status.Gateways = append(t.result.Status.Gateways, StatusOf[*gatewayv1.Gateway, gatewayv1.GatewayStatus]{g.object, g.status()})
	}
	for _, s := range slices.SortedFunc(maps.Values(t.sets), func(a, b *listenerSet) int { return byAge(a.object, b.object) }) {
		t.result.Status.ListenerSets = append(t.result.Status.ListenerSets, StatusOf[*gatewayv1.ListenerSet, gatewayv1.ListenerSetStatus]{s.object, s.status()})
	}
	seen := map[*policy]bool{}
	for _, list := range t.policies {
		for _, p := range list {
			status := t.policyStatus(p)
			ours := slices.ContainsFunc(p.object.Status.Ancestors, func(a gatewayv1.PolicyAncestorStatus) bool { return a.ControllerName == t.Controller })
			if seen[p] || len(status) == 0 && !ours {
				continue
			}
			seen[p] = true
			t.result.Status.Policies = append(t.result.Status.Policies, StatusOf[*gatewayv1.BackendTLSPolicy, []gatewayv1.PolicyAncestorStatus]{p.object, status})
		}
	}
	slices.SortFunc(t.result.Status.Policies, func(a, b StatusOf[*gatewayv1.BackendTLSPolicy, []gatewayv1.PolicyAncestorStatus]) int {
		return byAge(a.Object, b.Object)
	})
}

func classStatus(c *gatewayv1.GatewayClass) gatewayv1.GatewayClassStatus {
	v := verdict{}
	if c.Spec.ParametersRef != nil {
		v = no(gatewayv1.GatewayClassReasonInvalidParameters, "this controller knows no parameters: remove spec.parametersRef")
	}
	out := gatewayv1.GatewayClassStatus{Conditions: []metav1.Condition{
		condition(gatewayv1.GatewayClassConditionStatusAccepted, gatewayv1.GatewayClassReasonAccepted, "", v, c.Generation),
	}}
	for _, f := range SupportedFeatures {
		out.SupportedFeatures = append(out.SupportedFeatures, gatewayv1.SupportedFeature{Name: gatewayv1.FeatureName(f)})
	}
	return out
}

func (g *gateway) status() gatewayv1.GatewayStatus {
	generation := g.object.Generation
	accepted := metav1.Condition{Type: string(gatewayv1.GatewayConditionAccepted), Status: metav1.ConditionTrue, Reason: string(gatewayv1.GatewayReasonAccepted), ObservedGeneration: generation}
	valid, served := 0, 0
	pending := false
	for _, l := range g.listeners {
		if l.accepted.ok() && l.unconflicted.ok() {
			valid++
		}
		if l.served {
			served++
		} else if l.programmed() {
			pending = true
		}
	}
	switch {
	case !g.refused.ok():
		accepted.Status, accepted.Reason, accepted.Message = metav1.ConditionFalse, g.refused.reason, g.refused.message
	case valid == 0:
		accepted.Status, accepted.Reason, accepted.Message = metav1.ConditionFalse, string(gatewayv1.GatewayReasonListenersNotValid), "no listener can be served; see their conditions"
	case valid < len(g.listeners):
		accepted.Reason, accepted.Message = string(gatewayv1.GatewayReasonListenersNotValid), "some listeners cannot be served; see their conditions"
	}
	var programmed verdict
	switch {
	case accepted.Status != metav1.ConditionTrue:
		programmed = no(gatewayv1.GatewayReasonInvalid, "the Gateway is not accepted")
	case pending:
		programmed = no(gatewayv1.GatewayReasonPending, "the Gateway's Service is being made")
	case len(g.addresses) == 0 && served > 0:
		programmed = no(gatewayv1.GatewayReasonAddressNotAssigned, "the Gateway's Service has no address yet")
	case served == 0:
		programmed = no(gatewayv1.GatewayReasonInvalid, "no listener has a certificate it can use; see their conditions")
	}
	status := gatewayv1.GatewayStatus{
		Addresses: g.addresses,
		Conditions: []metav1.Condition{
			accepted,
			condition(gatewayv1.GatewayConditionProgrammed, gatewayv1.GatewayReasonProgrammed, "", programmed, generation),
		},
	}
	for _, l := range g.listeners {
		status.Listeners = append(status.Listeners, gatewayv1.ListenerStatus{
			Name: l.name, SupportedKinds: l.supportedKinds(), AttachedRoutes: l.attached, Conditions: l.conditions(generation),
		})
	}
	sets := int32(0)
	for _, s := range g.sets {
		if s.valid() > 0 {
			sets++
		}
	}
	if sets > 0 || g.object.Status.AttachedListenerSets != nil {
		status.AttachedListenerSets = &sets
	}
	return status
}

// valid counts the listeners that can be served.
func (s *listenerSet) valid() int {
	n := 0
	for _, l := range s.listeners {
		if l.programmed() {
			n++
		}
	}
	return n
}

func (s *listenerSet) status() gatewayv1.ListenerSetStatus {
	generation := s.object.Generation
	accepted := metav1.Condition{Type: string(gatewayv1.ListenerSetConditionAccepted), Status: metav1.ConditionTrue, Reason: string(gatewayv1.ListenerSetReasonAccepted), ObservedGeneration: generation}
	programmed := metav1.Condition{Type: string(gatewayv1.ListenerSetConditionProgrammed), Status: metav1.ConditionTrue, Reason: string(gatewayv1.ListenerSetReasonProgrammed), ObservedGeneration: generation}
	refuse := func(reason gatewayv1.ListenerSetConditionReason, message string) {
		for _, c := range []*metav1.Condition{&accepted, &programmed} {
			c.Status, c.Reason, c.Message = metav1.ConditionFalse, string(reason), message
		}
	}
	status := gatewayv1.ListenerSetStatus{}
	switch {
	case !s.allowed:
		refuse(gatewayv1.ListenerSetReasonNotAllowed, "Gateway "+s.gateway.name.String()+" allows no ListenerSets of namespace "+s.object.Namespace+" (see its allowedListeners)")
		status.Conditions = []metav1.Condition{accepted, programmed}
		return status
	case !s.gateway.refused.ok():
		refuse(gatewayv1.ListenerSetReasonParentNotAccepted, "Gateway "+s.gateway.name.String()+" is not accepted: "+s.gateway.refused.message)
	case s.valid() == 0:
		refuse(gatewayv1.ListenerSetReasonListenersNotValid, "no listener can be served; see their conditions")
	case s.valid() < len(s.listeners):
		accepted.Reason, accepted.Message = string(gatewayv1.ListenerSetReasonListenersNotValid), "some listeners cannot be served; see their conditions"
	}
	for _, l := range s.listeners {
		status.Listeners = append(status.Listeners, gatewayv1.ListenerEntryStatus{
			Name: l.name, SupportedKinds: l.supportedKinds(), AttachedRoutes: l.attached, Conditions: l.conditions(generation),
		})
	}
	status.Conditions = []metav1.Condition{accepted, programmed}
	return status
}

// MergeConditions returns conditions with the transition times of old where
// the status did not change, and now where it did.
func MergeConditions(old, conditions []metav1.Condition, now metav1.Time) []metav1.Condition {
	out := make([]metav1.Condition, 0, len(conditions))
	for _, c := range conditions {
		c.LastTransitionTime = now
		if have := meta.FindStatusCondition(old, c.Type); have != nil && have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
		out = append(out, c)
	}
	return out
}
