package routing

import "strings"

// hosts maps hostnames to values: names, wildcards and the one for any host.
type hosts[V any] struct {
	names     map[string]V
	wildcards map[string]V // without "*."
	any       V
	hasAny    bool
}

// set adds the value of a hostname.
func (h *hosts[V]) set(hostname string, v V) {
	if hostname == "" {
		h.any, h.hasAny = v, true
		return
	}
	m := &h.names
	suffix, wild := strings.CutPrefix(hostname, "*.")
	if wild {
		m = &h.wildcards
	}
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[suffix] = v
}

// get returns the value set for exactly this hostname.
func (h *hosts[V]) get(hostname string) (v V, ok bool) {
	if hostname == "" {
		return h.any, h.hasAny
	}
	if suffix, wild := strings.CutPrefix(hostname, "*."); wild {
		v, ok = h.wildcards[suffix]
		return v, ok
	}
	v, ok = h.names[hostname]
	return v, ok
}

// find returns the value of the most specific hostname that matches host.
func (h *hosts[V]) find(host string) (v V, ok bool) {
	if v, ok = h.names[host]; ok {
		return v, true
	}
	return h.findWildcard(host)
}

// findWildcard is find without names. A wildcard stands for one or more labels.
func (h *hosts[V]) findWildcard(host string) (v V, ok bool) {
	if len(h.wildcards) > 0 {
		for i := strings.IndexByte(host, '.'); i >= 0; {
			host = host[i+1:]
			if v, ok = h.wildcards[host]; ok {
				return v, true
			}
			i = strings.IndexByte(host, '.')
		}
	}
	return h.any, h.hasAny
}

// wider returns the value of the next less specific hostname that matches
// whatever the given hostname matches.
func (h *hosts[V]) wider(hostname string) (v V, ok bool) {
	if hostname == "" {
		return v, false
	}
	return h.findWildcard(strings.TrimPrefix(hostname, "*."))
}

// Intersect returns the hostname that both a and b allow, the more specific of
// the two, and whether there is any. Hostnames are as in [Listener].
func Intersect(a, b string) (string, bool) {
	switch {
	case a == b || b == "":
		return a, true
	case a == "":
		return b, true
	}
	suffixA, wildA := strings.CutPrefix(a, "*")
	suffixB, wildB := strings.CutPrefix(b, "*")
	// "*.example.com" covers "a.example.com" and "*.a.example.com", not
	// "example.com".
	if wildB && len(a) > len(suffixB) && strings.HasSuffix(a, suffixB) {
		return a, true
	}
	if wildA && len(b) > len(suffixA) && strings.HasSuffix(b, suffixA) {
		return b, true
	}
	return "", false
}

// NormalizeHost returns the host of an authority as routes spell it:
// lowercase, without port and without the root's dot. Only capitals make it
// allocate.
func NormalizeHost(authority string) string {
	host := authority
	if strings.HasPrefix(host, "[") {
		if end := strings.IndexByte(host, ']'); end >= 0 {
			host = host[:end+1]
		}
	} else if i := strings.IndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	host = strings.TrimSuffix(host, ".")
	for i := 0; i < len(host); i++ {
		if c := host[i]; 'A' <= c && c <= 'Z' {
			return strings.ToLower(host)
		}
	}
	return host
}
