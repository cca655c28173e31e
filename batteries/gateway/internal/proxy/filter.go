package proxy

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
)

// edit returns fields with an edit applied, in place where it can.
func edit(fields []http1.Field, e *model.HeaderEdit) []http1.Field {
	for _, name := range e.Remove {
		fields = slices.DeleteFunc(fields, func(f http1.Field) bool { return http1.EqualFold(f.Name, name) })
	}
	for _, set := range e.Set {
		fields = setField(fields, set)
	}
	return append(fields, e.Add...)
}

// setField makes f the only field of its name.
func setField(fields []http1.Field, f http1.Field) []http1.Field {
	fields = slices.DeleteFunc(fields, func(other http1.Field) bool { return http1.EqualFold(other.Name, f.Name) })
	return append(fields, f)
}

// field returns the value of the first field of a name, or "".
func field(fields []http1.Field, name string) string {
	for i := range fields {
		if http1.EqualFold(fields[i].Name, name) {
			return fields[i].Value
		}
	}
	return ""
}

// editPath returns a request's path, which is normalised and has no query,
// with an edit applied.
func (a *action) editPath(e *model.PathEdit, path string) string {
	if e.Full != "" {
		return e.Full
	}
	path = strings.TrimSuffix(e.Prefix, "/") + strings.TrimPrefix(path, a.prefix)
	if path == "" {
		return "/"
	}
	return path
}

// redirect answers with another place for the request.
func (x *exchange) redirect(r *model.Redirect) {
	scheme, port := "http", x.routes.number
	if x.secure {
		scheme = "https"
	}
	if r.Scheme != "" && r.Scheme != scheme {
		scheme = r.Scheme
		port = wellKnownPort(scheme)
	}
	if r.Port != 0 {
		port = r.Port
	}
	host := x.request.Host
	if r.Hostname != "" {
		host = r.Hostname
	}
	path := x.path
	if r.Path != nil {
		path = x.action.editPath(r.Path, x.request.Path)
	}
	var b strings.Builder
	b.WriteString(scheme)
	b.WriteString("://")
	b.WriteString(host)
	if port != wellKnownPort(scheme) {
		b.WriteByte(':')
		b.WriteString(strconv.Itoa(int(port)))
	}
	b.WriteString(path)
	if x.request.Query != "" {
		b.WriteByte('?')
		b.WriteString(x.request.Query)
	}
	fields := []http1.Field{{Name: "Location", Value: b.String()}}
	if e := x.action.rule.Filters.ResponseHeaders; e != nil {
		fields = edit(fields, e)
	}
	x.respondText(r.Status, fields, "")
}

func wellKnownPort(scheme string) uint16 {
	if scheme == "https" {
		return 443
	}
	return 80
}

// statusText returns the reason phrase of a status.
func statusText(status int) string {
	if t := http.StatusText(status); t != "" {
		return t
	}
	return "Status " + strconv.Itoa(status)
}

// cors is a compiled CORS filter.
type cors struct {
	model.CORS
	methods, headers, expose, maxAge string
}

func compileCORS(c *model.CORS) *cors {
	if c == nil {
		return nil
	}
	out := &cors{
		CORS: *c, methods: strings.Join(c.Methods, ", "), headers: strings.Join(c.Headers, ", "),
		expose: strings.Join(c.Expose, ", "),
	}
	if c.MaxAge > 0 {
		out.maxAge = strconv.Itoa(int(c.MaxAge))
	}
	return out
}

// allows tells whether pages of an origin may read responses.
func (c *cors) allows(origin string) bool {
	return slices.ContainsFunc(c.Origins, func(allowed string) bool {
		before, after, wild := strings.Cut(allowed, "*")
		if !wild {
			return http1.EqualFold(allowed, origin)
		}
		return len(origin) >= len(before)+len(after) &&
			http1.EqualFold(origin[:len(before)], before) && http1.EqualFold(origin[len(origin)-len(after):], after)
	})
}

// answer answers preflight requests, and reports whether x was one.
func (c *cors) answer(x *exchange) bool {
	origin := field(x.request.Fields, "origin")
	asked := field(x.request.Fields, "access-control-request-method")
	if x.request.Method != "OPTIONS" || origin == "" || asked == "" {
		return false
	}
	var fields []http1.Field
	add := func(name, value string) {
		if value != "" {
			fields = append(fields, http1.Field{Name: name, Value: value})
		}
	}
	if c.allows(origin) {
		// respondText marks the origin. Wildcards are spelled out: with
		// credentials browsers take "*" literally.
		methods, headers := c.methods, c.headers
		if slices.Contains(c.Methods, "*") {
			methods = asked
		}
		if slices.Contains(c.Headers, "*") {
			headers = field(x.request.Fields, "access-control-request-headers")
		}
		add("Access-Control-Allow-Methods", methods)
		add("Access-Control-Allow-Headers", headers)
		add("Access-Control-Max-Age", c.maxAge)
	}
	add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
	x.respondText(204, fields, "")
	return true
}

// mark adds to a response whether the request's origin may read it. A
// backend's own opinion is replaced.
func (c *cors) mark(x *exchange, fields []http1.Field) []http1.Field {
	origin := field(x.request.Fields, "origin")
	if origin == "" {
		return fields
	}
	fields = slices.DeleteFunc(fields, func(f http1.Field) bool {
		return http1.EqualFold(f.Name, "access-control-allow-origin") || http1.EqualFold(f.Name, "access-control-allow-credentials")
	})
	fields = append(fields, http1.Field{Name: "Vary", Value: "Origin"})
	if !c.allows(origin) {
		return fields
	}
	fields = append(fields, http1.Field{Name: "Access-Control-Allow-Origin", Value: origin})
	if c.Credentials {
		fields = append(fields, http1.Field{Name: "Access-Control-Allow-Credentials", Value: "true"})
	}
	if c.expose != "" {
		fields = setField(fields, http1.Field{Name: "Access-Control-Expose-Headers", Value: c.expose})
	}
	return fields
}
