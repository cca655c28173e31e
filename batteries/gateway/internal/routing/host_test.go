package routing

import (
	"strings"
	"testing"
)

// FuzzNormalizeHost checks that a name has one spelling, and no port.
func FuzzNormalizeHost(f *testing.F) {
	for _, s := range []string{"Example.COM:443", "[::1]:80", "[::1", "a.", "a..", ".", ":", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, authority string) {
		host := NormalizeHost(authority)
		if host != strings.ToLower(host) && strings.ToLower(authority) == authority {
			t.Errorf("%q became %q, which has other capitals", authority, host)
		}
		if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
			t.Errorf("%q became %q, which has a port", authority, host)
		}
		if strings.HasSuffix(host, ".") && !strings.HasSuffix(strings.TrimSuffix(authority, "."), ".") && !strings.Contains(authority, ":") {
			t.Errorf("%q became %q, which ends with the root's dot", authority, host)
		}
	})
}

// FuzzIntersect checks that both sides are asked alike, and that what comes out
// is a name of both.
func FuzzIntersect(f *testing.F) {
	f.Add("*.example.com", "a.example.com", "a.example.com")
	f.Add("*.example.com", "*.a.example.com", "b.a.example.com")
	f.Add("", "*.com", "com")
	f.Fuzz(func(t *testing.T, a, b, name string) {
		one, ok := Intersect(a, b)
		other, same := Intersect(b, a)
		if ok != same || one != other {
			t.Errorf("Intersect(%q, %q) = %q, %v, the other way round %q, %v", a, b, one, ok, other, same)
		}
		if !hostname(a) || !hostname(b) || !hostname(name) || strings.HasPrefix(name, "*") || name == "" {
			return
		}
		var tableA, tableB, both hosts[bool]
		tableA.set(a, true)
		tableB.set(b, true)
		if ok {
			both.set(one, true)
		}
		_, inA := tableA.find(name)
		_, inB := tableB.find(name)
		if _, in := both.find(name); in != (inA && inB) {
			t.Errorf("%q is in %q: %v, in %q: %v, in what they share, %q: %v", name, a, inA, b, inB, one, in)
		}
	})
}

// hostname tells whether s can be one in the Gateway API: nothing, or labels,
// of which the first may be "*" when others follow.
func hostname(s string) bool {
	if s == "" {
		return true
	}
	labels := strings.Split(s, ".")
	if labels[0] == "*" && len(labels) > 1 {
		labels = labels[1:]
	}
	for _, l := range labels {
		if l == "" || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.Contains(l, "*") {
			return false
		}
	}
	return true
}
