package translate

import (
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/routing"
)

// readHTTPRules translates the rules of an HTTPRoute.
func (t *translation) readHTTPRules(r *route) {
	for i := range r.http.Spec.Rules {
		source := &r.http.Spec.Rules[i]
		rule := routeRule{rule: &model.Rule{Route: routeName(r)}, index: i}
		var v verdict
		if rule.matches, v = httpMatches(source.Matches); !v.ok() {
			r.drop(i, v)
			continue
		}
		if v := t.fillHTTPRule(r, source, rule.rule); !v.ok() {
			r.fail(rule, v)
			continue
		}
		r.add(rule)
	}
}

// fillHTTPRule says what a rule does.
func (t *translation) fillHTTPRule(r *route, source *gatewayv1.HTTPRouteRule, rule *model.Rule) verdict {
	if v := t.readFilters(r, source.Filters, &rule.Filters); !v.ok() {
		return v
	}
	if rule.Filters.Redirect != nil && rule.Filters.Rewrite != nil {
		return no(gatewayv1.RouteReasonIncompatibleFilters, "a rule cannot both redirect and rewrite")
	}
	if source.Timeouts != nil {
		var v verdict
		if rule.RequestTimeout, v = timeout(source.Timeouts.Request); v.ok() {
			rule.BackendTimeout, v = timeout(source.Timeouts.BackendRequest)
		}
		if !v.ok() {
			return v
		}
	}
	for j := range source.BackendRefs {
		ref := &source.BackendRefs[j]
		b := t.readBackend(r, ref.BackendRef)
		var filters model.Filters
		if v := t.readFilters(r, ref.Filters, &filters); !v.ok() {
			return v
		}
		if filters.CORS != nil || filters.Redirect != nil {
			return no(gatewayv1.RouteReasonIncompatibleFilters, "a backend cannot have a redirect or CORS filter")
		}
		b.RequestHeaders, b.ResponseHeaders, b.Rewrite, b.Mirrors = filters.RequestHeaders, filters.ResponseHeaders, filters.Rewrite, filters.Mirrors
		if b.Weight > 0 {
			rule.Backends = append(rule.Backends, b)
		}
	}
	return verdict{}
}

func routeName(r *route) string { return string(r.kind) + "/" + nameOf(r.object).String() }

// timeout reads a duration: zero in the object means none, which is negative
// in the model.
func timeout(d *gatewayv1.Duration) (time.Duration, verdict) {
	if d == nil {
		return 0, verdict{}
	}
	out, err := time.ParseDuration(string(*d))
	if err != nil {
		return 0, no(gatewayv1.RouteReasonUnsupportedValue, "timeout %q is no duration", *d)
	}
	if out == 0 {
		return -1, verdict{}
	}
	return out, verdict{}
}

// httpMatches translates the matches of a rule; none means every path.
func httpMatches(list []gatewayv1.HTTPRouteMatch) ([]ruleMatch, verdict) {
	if len(list) == 0 {
		list = []gatewayv1.HTTPRouteMatch{{}}
	}
	out := make([]ruleMatch, 0, len(list))
	for _, m := range list {
		match := routing.Match{PathType: routing.Prefix, Path: "/", Method: string(deref(m.Method, ""))}
		if m.Path != nil {
			match.Path = deref(m.Path.Value, "/")
			switch deref(m.Path.Type, gatewayv1.PathMatchPathPrefix) {
			case gatewayv1.PathMatchExact:
				match.PathType = routing.Exact
				match.Path, _ = routing.NormalizePath(match.Path)
			case gatewayv1.PathMatchPathPrefix:
				match.Path, _ = routing.NormalizePath(match.Path)
			case gatewayv1.PathMatchRegularExpression:
				match.PathType = routing.Regex
				if _, err := routing.CompileRegex(match.Path); err != nil {
					return nil, no(gatewayv1.RouteReasonUnsupportedValue, "%v", err)
				}
			default:
				return nil, no(gatewayv1.RouteReasonUnsupportedValue, "path type %q is not known", *m.Path.Type)
			}
		}
		for _, h := range m.Headers {
			v, bad := valueMatch(string(h.Name), h.Value, deref(h.Type, gatewayv1.HeaderMatchExact) == gatewayv1.HeaderMatchRegularExpression)
			if !bad.ok() {
				return nil, bad
			}
			match.Headers = appendFirst(match.Headers, v, http1.EqualFold)
		}
		for _, q := range m.QueryParams {
			v, bad := valueMatch(string(q.Name), q.Value, deref(q.Type, gatewayv1.QueryParamMatchExact) == gatewayv1.QueryParamMatchRegularExpression)
			if !bad.ok() {
				return nil, bad
			}
			match.Query = appendFirst(match.Query, v, func(a, b string) bool { return a == b })
		}
		prefix := ""
		if match.PathType == routing.Prefix {
			prefix = strings.TrimSuffix(match.Path, "/")
		}
		out = append(out, ruleMatch{match, prefix})
	}
	return out, verdict{}
}

func valueMatch(name, value string, regex bool) (routing.Value, verdict) {
	if regex {
		if _, err := routing.CompileRegex(value); err != nil {
			return routing.Value{}, no(gatewayv1.RouteReasonUnsupportedValue, "%v", err)
		}
	}
	return routing.Value{Name: name, Value: value, Regex: regex}, verdict{}
}

// appendFirst appends a condition unless there is one of its name: only the
// first counts (HTTPRouteMatch).
func appendFirst(list []routing.Value, v routing.Value, same func(a, b string) bool) []routing.Value {
	for _, have := range list {
		if same(have.Name, v.Name) {
			return list
		}
	}
	return append(list, v)
}

// readFilters translates filters into f.
func (t *translation) readFilters(r *route, list []gatewayv1.HTTPRouteFilter, f *model.Filters) verdict {
	for i := range list {
		source := &list[i]
		switch {
		case source.Type == gatewayv1.HTTPRouteFilterRequestHeaderModifier && source.RequestHeaderModifier != nil:
			f.RequestHeaders = headerEdit(source.RequestHeaderModifier)
		case source.Type == gatewayv1.HTTPRouteFilterResponseHeaderModifier && source.ResponseHeaderModifier != nil:
			f.ResponseHeaders = headerEdit(source.ResponseHeaderModifier)
		case source.Type == gatewayv1.HTTPRouteFilterRequestRedirect && source.RequestRedirect != nil:
			f.Redirect = redirect(source.RequestRedirect)
		case source.Type == gatewayv1.HTTPRouteFilterURLRewrite && source.URLRewrite != nil:
			f.Rewrite = &model.Rewrite{Hostname: string(deref(source.URLRewrite.Hostname, "")), Path: pathEdit(source.URLRewrite.Path)}
		case source.Type == gatewayv1.HTTPRouteFilterCORS && source.CORS != nil:
			f.CORS = corsFilter(source.CORS)
		case source.Type == gatewayv1.HTTPRouteFilterRequestMirror && source.RequestMirror != nil:
			t.readMirror(r, source.RequestMirror, f)
		case source.Type == gatewayv1.HTTPRouteFilterExtensionRef && source.ExtensionRef != nil:
			r.unresolved(no(gatewayv1.RouteReasonInvalidKind, "filter extensionRef %s/%s is not known", source.ExtensionRef.Group, source.ExtensionRef.Kind))
			return no(gatewayv1.RouteReasonUnsupportedValue, "filter extensionRef is not supported")
		default:
			return no(gatewayv1.RouteReasonUnsupportedValue, "filter %s is not supported", source.Type)
		}
	}
	return verdict{}
}

func headerEdit(f *gatewayv1.HTTPHeaderFilter) *model.HeaderEdit {
	fields := func(list []gatewayv1.HTTPHeader) []http1.Field {
		var out []http1.Field
		for _, h := range list {
			out = append(out, http1.NewField(string(h.Name), h.Value))
		}
		return out
	}
	return &model.HeaderEdit{Remove: f.Remove, Set: fields(f.Set), Add: fields(f.Add)}
}

func pathEdit(p *gatewayv1.HTTPPathModifier) *model.PathEdit {
	switch {
	case p == nil:
		return nil
	case p.Type == gatewayv1.FullPathHTTPPathModifier:
		full := deref(p.ReplaceFullPath, "")
		if !strings.HasPrefix(full, "/") {
			full = "/" + full
		}
		return &model.PathEdit{Full: full}
	}
	prefix := deref(p.ReplacePrefixMatch, "")
	if prefix != "" && !strings.HasPrefix(prefix, "/") {
		prefix = "/" + prefix
	}
	return &model.PathEdit{Prefix: prefix}
}

func redirect(r *gatewayv1.HTTPRequestRedirectFilter) *model.Redirect {
	return &model.Redirect{
		Scheme: strings.ToLower(deref(r.Scheme, "")), Hostname: string(deref(r.Hostname, "")), Port: uint16(deref(r.Port, 0)),
		Path: pathEdit(r.Path), Status: deref(r.StatusCode, 302),
	}
}

func corsFilter(f *gatewayv1.HTTPCORSFilter) *model.CORS {
	c := &model.CORS{Credentials: deref(f.AllowCredentials, false), MaxAge: f.MaxAge}
	for _, o := range f.AllowOrigins {
		c.Origins = append(c.Origins, string(o))
	}
	for _, m := range f.AllowMethods {
		c.Methods = append(c.Methods, string(m))
	}
	for _, h := range f.AllowHeaders {
		c.Headers = append(c.Headers, string(h))
	}
	for _, h := range f.ExposeHeaders {
		c.Expose = append(c.Expose, string(h))
	}
	return c
}

// readMirror adds a mirror, unless its backend is no good: then requests are
// served without it.
func (t *translation) readMirror(r *route, source *gatewayv1.HTTPRequestMirrorFilter, f *model.Filters) {
	b := t.readBackend(r, gatewayv1.BackendRef{BackendObjectReference: source.BackendRef})
	if b.Problem != "" {
		return
	}
	m := model.Mirror{ID: b.ID, Numerator: 100, Denominator: 100}
	switch {
	case source.Percent != nil:
		m.Numerator = uint32(*source.Percent)
	case source.Fraction != nil:
		m.Numerator, m.Denominator = uint32(source.Fraction.Numerator), uint32(deref(source.Fraction.Denominator, 100))
	}
	f.Mirrors = append(f.Mirrors, m)
}
