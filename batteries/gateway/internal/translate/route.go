package translate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/routing"
)

// route is an HTTPRoute or GRPCRoute.
type route struct {
	kind      gatewayv1.Kind
	object    metav1.Object
	parents   []gatewayv1.ParentReference
	hostnames []string
	// rules are those that are served; valid of them as they are written, the
	// others answer with an error.
	rules []routeRule
	valid int
	// resolved says whether every reference is good, dropped why rules are not
	// served as they are written.
	resolved verdict
	dropped  verdict
	read     bool
	services []types.NamespacedName // the Services it refers to

	http *gatewayv1.HTTPRoute
	grpc *gatewayv1.GRPCRoute
}

// routeRule is one rule of a route, translated once for all listeners.
type routeRule struct {
	rule    *model.Rule
	matches []ruleMatch
	index   int
}

type ruleMatch struct {
	match  routing.Match
	prefix string
}

type routeKey struct {
	kind gatewayv1.Kind
	name types.NamespacedName
}

// attachRoutes attaches all routes to their parents, older ones first.
func (t *translation) attachRoutes() {
	routes := make([]*route, 0, len(t.objects.HTTPRoutes)+len(t.objects.GRPCRoutes))
	for _, o := range t.objects.HTTPRoutes {
		routes = append(routes, &route{kind: "HTTPRoute", object: o, parents: o.Spec.ParentRefs, hostnames: hostnames(o.Spec.Hostnames), http: o})
	}
	for _, o := range t.objects.GRPCRoutes {
		routes = append(routes, &route{kind: "GRPCRoute", object: o, parents: o.Spec.ParentRefs, hostnames: hostnames(o.Spec.Hostnames), grpc: o})
	}
	slices.SortFunc(routes, func(a, b *route) int {
		return cmp.Or(byAge(a.object, b.object), strings.Compare(string(a.kind), string(b.kind)))
	})
	for _, r := range routes {
		t.attachRoute(r)
	}
}

// hostnames returns hostnames as routing has them; none means any.
func hostnames(list []gatewayv1.Hostname) []string {
	if len(list) == 0 {
		return []string{""}
	}
	out := make([]string, 0, len(list))
	for _, h := range list {
		out = append(out, strings.ToLower(string(h)))
	}
	return out
}

// attachRoute attaches a route to each of its parents that is ours and notes
// what its status should be.
func (t *translation) attachRoute(r *route) {
	var status []gatewayv1.RouteParentStatus
	for _, ref := range r.parents {
		g, listeners, refused := t.parent(r, ref)
		if g == nil {
			continue
		}
		if !r.read {
			r.read = true
			t.readRules(r)
		}
		accepted := refused
		if accepted.ok() {
			accepted = t.attach(r, ref, listeners)
		}
		if accepted.ok() {
			for _, s := range r.services {
				if t.uses[s] == nil {
					t.uses[s] = map[types.NamespacedName]bool{}
				}
				t.uses[s][g.name] = true
			}
		}
		status = append(status, gatewayv1.RouteParentStatus{
			ParentRef: ref, ControllerName: t.Controller, Conditions: r.conditions(accepted),
		})
	}
	// A route without a parent of ours may still carry a status of ours.
	switch {
	case r.http != nil && (len(status) > 0 || hasOurs(r.http.Status.Parents, t.Controller)):
		t.result.Status.HTTPRoutes = append(t.result.Status.HTTPRoutes, StatusOf[*gatewayv1.HTTPRoute, []gatewayv1.RouteParentStatus]{r.http, status})
	case r.grpc != nil && (len(status) > 0 || hasOurs(r.grpc.Status.Parents, t.Controller)):
		t.result.Status.GRPCRoutes = append(t.result.Status.GRPCRoutes, StatusOf[*gatewayv1.GRPCRoute, []gatewayv1.RouteParentStatus]{r.grpc, status})
	}
}

func hasOurs(parents []gatewayv1.RouteParentStatus, controller gatewayv1.GatewayController) bool {
	return slices.ContainsFunc(parents, func(p gatewayv1.RouteParentStatus) bool { return p.ControllerName == controller })
}

// conditions returns the conditions of a route for one parent.
func (r *route) conditions(accepted verdict) []metav1.Condition {
	generation := r.object.GetGeneration()
	if accepted.ok() && !r.dropped.ok() && r.valid == 0 {
		accepted = r.dropped
	}
	out := []metav1.Condition{
		condition(gatewayv1.RouteConditionAccepted, gatewayv1.RouteReasonAccepted, "", accepted, generation),
		condition(gatewayv1.RouteConditionResolvedRefs, gatewayv1.RouteReasonResolvedRefs, "", r.resolved, generation),
	}
	if !r.dropped.ok() && r.valid > 0 {
		out = append(out, metav1.Condition{
			Type: string(gatewayv1.RouteConditionPartiallyInvalid), Status: metav1.ConditionTrue,
			Reason: r.dropped.reason, Message: "Dropped Rule: " + r.dropped.message, ObservedGeneration: generation,
		})
	}
	return out
}

// parent finds the listeners that a reference means. The gateway is nil when
// it is not ours.
func (t *translation) parent(r *route, ref gatewayv1.ParentReference) (*gateway, []*listener, verdict) {
	if deref(ref.Group, gatewayv1.GroupName) != gatewayv1.GroupName {
		return nil, nil, verdict{}
	}
	name := types.NamespacedName{Namespace: string(deref(ref.Namespace, gatewayv1.Namespace(r.object.GetNamespace()))), Name: string(ref.Name)}
	switch deref(ref.Kind, "Gateway") {
	case "Gateway":
		if g := t.gateways[name]; g != nil {
			return g, g.listeners, verdict{}
		}
	case "ListenerSet":
		s := t.sets[name]
		if s == nil {
			return nil, nil, verdict{}
		}
		if !s.allowed {
			return s.gateway, nil, no(gatewayv1.RouteReasonNoMatchingParent, "ListenerSet %s is not allowed by its Gateway", name)
		}
		return s.gateway, s.listeners, verdict{}
	}
	return nil, nil, verdict{}
}

// attach adds the route's rules to the listeners that a reference means and
// that take it.
func (t *translation) attach(r *route, ref gatewayv1.ParentReference, listeners []*listener) verdict {
	named, allowed, attached := false, false, false
	var clash string
	for _, l := range listeners {
		if ref.SectionName != nil && *ref.SectionName != l.name || ref.Port != nil && *ref.Port != l.port {
			continue
		}
		named = true
		if !slices.Contains(l.kinds, r.kind) || !t.allowsNamespace(l.from, l.selector, l.namespace, r.object.GetNamespace()) {
			continue
		}
		allowed = true
		var hosts []string
		for _, h := range r.hostnames {
			if both, ok := routing.Intersect(h, l.hostname); ok && !slices.Contains(hosts, both) {
				hosts = append(hosts, both)
			}
		}
		if len(hosts) == 0 {
			continue
		}
		if host, conflict := l.otherKind(r.kind).overlap(hosts); conflict {
			clash = host
			continue
		}
		attached = true
		l.add(r, hosts)
	}
	switch {
	case attached:
		return verdict{}
	case clash != "":
		return no(gatewayv1.ListenerReasonHostnameConflict, "an older route of the other kind (HTTPRoute, GRPCRoute) has hostname %q: use different hostnames", clash)
	case !named:
		return no(gatewayv1.RouteReasonNoMatchingParent, "the parent has no listener%s", describe(ref))
	case !allowed:
		return no(gatewayv1.RouteReasonNotAllowedByListeners, "no listener allows a %s of namespace %s (see the listeners' allowedRoutes)", r.kind, r.object.GetNamespace())
	}
	return no(gatewayv1.RouteReasonNoMatchingListenerHostname, "no hostname of the route is among those of the listeners")
}

func describe(ref gatewayv1.ParentReference) string {
	out := ""
	if ref.SectionName != nil {
		out += fmt.Sprintf(" named %q", *ref.SectionName)
	}
	if ref.Port != nil {
		out += fmt.Sprintf(" on port %d", *ref.Port)
	}
	return out
}

// otherKind returns the claims of the kind of routes that must not share
// hostnames with the given one.
func (l *listener) otherKind(kind gatewayv1.Kind) hostClaims {
	if kind == "HTTPRoute" {
		return l.claimed["GRPCRoute"]
	}
	return l.claimed["HTTPRoute"]
}

// add adds a route for the given hostnames, once.
func (l *listener) add(r *route, hosts []string) {
	key := routeKey{r.kind, nameOf(r.object)}
	if l.routes[key] {
		return
	}
	if !r.dropped.ok() && r.valid == 0 {
		return // not accepted after all
	}
	l.routes[key] = true
	l.attached++
	claims := l.claimed[r.kind]
	if claims == nil {
		claims = hostClaims{}
		l.claimed[r.kind] = claims
	}
	created, name := r.object.GetCreationTimestamp().Unix(), nameOf(r.object).String()
	for _, host := range hosts {
		claims[host] = true
		for i := range r.rules {
			rule := &r.rules[i]
			for j, m := range rule.matches {
				l.rules = append(l.rules, routing.Rule[model.Action]{
					Hostname: host, Match: m.match,
					Age:    routing.Age{Created: created, Route: name, Rule: rule.index, Match: j},
					Action: model.Action{Rule: rule.rule, Prefix: m.prefix},
				})
			}
		}
	}
}

// readRules translates the rules of a route.
func (t *translation) readRules(r *route) {
	if r.http != nil {
		t.readHTTPRules(r)
	} else {
		t.readGRPCRules(r)
	}
}

// drop leaves a rule out whose matches make no sense.
func (r *route) drop(index int, v verdict) {
	if r.dropped.ok() {
		r.dropped = verdict{v.reason, fmt.Sprintf("rule %d: %s", index, v.message)}
	}
}

// add adds a rule.
func (r *route) add(rule routeRule) {
	r.rules = append(r.rules, rule)
	r.valid++
}

// fail makes a rule that cannot be done as written answer with an error: its
// requests must neither pass without the filter that was asked for, nor fall to
// another rule.
func (r *route) fail(rule routeRule, v verdict) {
	r.drop(rule.index, v)
	rule.rule.Filters = model.Filters{}
	rule.rule.Backends = []model.Backend{{Weight: 1, Problem: v.message}}
	r.rules = append(r.rules, rule)
}

// unresolved notes a reference that is no good; the first one decides the
// reason.
func (r *route) unresolved(v verdict) {
	if r.resolved.ok() {
		r.resolved = v
	}
}
