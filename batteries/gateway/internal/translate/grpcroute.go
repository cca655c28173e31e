package translate

import (
	"regexp"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/routing"
)

// readGRPCRules translates the rules of a GRPCRoute. A call is a POST to the
// path /service/method, so matches become matches of paths.
func (t *translation) readGRPCRules(r *route) {
	for i := range r.grpc.Spec.Rules {
		source := &r.grpc.Spec.Rules[i]
		// A call may last as long as its peers want.
		rule := routeRule{rule: &model.Rule{Route: routeName(r), BackendTimeout: -1}, index: i}
		var v verdict
		if rule.matches, v = grpcMatches(source.Matches); !v.ok() {
			r.drop(i, v)
			continue
		}
		if v := t.fillGRPCRule(r, source, rule.rule); !v.ok() {
			r.fail(rule, v)
			continue
		}
		r.add(rule)
	}
}

// fillGRPCRule says what a rule does.
func (t *translation) fillGRPCRule(r *route, source *gatewayv1.GRPCRouteRule, rule *model.Rule) verdict {
	if v := t.readFilters(r, httpFilters(source.Filters), &rule.Filters); !v.ok() {
		return v
	}
	for j := range source.BackendRefs {
		ref := &source.BackendRefs[j]
		b := t.readBackend(r, ref.BackendRef)
		var filters model.Filters
		if v := t.readFilters(r, httpFilters(ref.Filters), &filters); !v.ok() {
			return v
		}
		b.RequestHeaders, b.ResponseHeaders, b.Mirrors = filters.RequestHeaders, filters.ResponseHeaders, filters.Mirrors
		if b.Weight > 0 {
			rule.Backends = append(rule.Backends, b)
		}
	}
	return verdict{}
}

// httpFilters returns filters as those of an HTTPRoute, which has all kinds
// that a GRPCRoute has.
func httpFilters(list []gatewayv1.GRPCRouteFilter) []gatewayv1.HTTPRouteFilter {
	out := make([]gatewayv1.HTTPRouteFilter, 0, len(list))
	for _, f := range list {
		out = append(out, gatewayv1.HTTPRouteFilter{
			Type: gatewayv1.HTTPRouteFilterType(f.Type), RequestHeaderModifier: f.RequestHeaderModifier,
			ResponseHeaderModifier: f.ResponseHeaderModifier, RequestMirror: f.RequestMirror, ExtensionRef: f.ExtensionRef,
		})
	}
	return out
}

func grpcMatches(list []gatewayv1.GRPCRouteMatch) ([]ruleMatch, verdict) {
	if len(list) == 0 {
		list = []gatewayv1.GRPCRouteMatch{{}}
	}
	out := make([]ruleMatch, 0, len(list))
	for _, m := range list {
		match := routing.Match{PathType: routing.Prefix, Path: "/"}
		if m.Method != nil {
			service, method := deref(m.Method.Service, ""), deref(m.Method.Method, "")
			exact := deref(m.Method.Type, gatewayv1.GRPCMethodMatchExact) == gatewayv1.GRPCMethodMatchExact
			switch {
			case service == "" && method == "":
			case exact && service != "" && method != "":
				match.PathType, match.Path = routing.Exact, "/"+service+"/"+method
			case exact && service != "":
				match.Path = "/" + service
			default:
				if exact {
					method = regexp.QuoteMeta(method)
				}
				match.PathType, match.Path = routing.Regex, "/"+orAny(service)+"/"+orAny(method)
				if _, err := routing.CompileRegex(match.Path); err != nil {
					return nil, no(gatewayv1.RouteReasonUnsupportedValue, "%v", err)
				}
			}
		}
		for _, h := range m.Headers {
			v, bad := valueMatch(string(h.Name), h.Value, deref(h.Type, gatewayv1.GRPCHeaderMatchExact) == gatewayv1.GRPCHeaderMatchRegularExpression)
			if !bad.ok() {
				return nil, bad
			}
			match.Headers = appendFirst(match.Headers, v, http1.EqualFold)
		}
		out = append(out, ruleMatch{match: match})
	}
	return out, verdict{}
}

// orAny returns an expression as a group, or one for any segment.
func orAny(expression string) string {
	if expression == "" {
		return "[^/]+"
	}
	return "(?:" + expression + ")"
}
