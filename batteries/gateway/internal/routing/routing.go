// Package routing finds the rule that answers a request. Rules are compiled
// into an immutable [Table]; a change makes a new table.
//
// It promises Gateway API's order: the listener with the most specific
// hostname; of its rules those with the most specific hostname; then exact
// path, regular expression, longest path prefix; then method, number of
// headers, number of query parameters; then the older route, then its name,
// then the rule's position. A rule that does not match the whole request never
// hides a less specific one of the same listener.
//
// It promises that the time of a lookup does not grow with the number of rules
// (regular expressions excepted: those of one hostname are tried in order),
// and that a lookup allocates nothing unless the request repeats a header or
// escapes its query.
//
// It refuses to know what a rule does: that is the T of the table.
//
// Invariant: Lookup equals a scan of all rules for the best match (checked
// against a naive matcher in the tests).
package routing

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
)

// Listener is one listener of a port with the rules attached to it.
type Listener[T any] struct {
	// Hostname is lowercase: a name, "*." before a name, or "" for any.
	Hostname string
	Rules    []Rule[T]
}

// Rule is one way to match a request, with what answers it.
type Rule[T any] struct {
	// Hostname is like the listener's, and no less specific than it.
	Hostname string
	Match    Match
	Age      Age
	Action   T
}

// Age orders rules that match a request equally well: earlier ones first.
type Age struct {
	// Created is the route's creation in Unix seconds.
	Created int64
	// Route is the route's namespace/name.
	Route string
	// Rule and Match are positions in the route and the rule.
	Rule, Match int
}

// Match holds conditions; all of them must hold. The zero Match matches no
// path: Path must be set.
type Match struct {
	PathType PathType
	// Path is normalised as by [NormalizePath], or a regular expression.
	Path string
	// Method is compared exactly; "" matches all.
	Method  string
	Headers []Value
	Query   []Value
}

// PathType says how Match.Path is compared.
type PathType uint8

// The types of path matches, in order of precedence.
const (
	Exact PathType = iota
	Regex
	Prefix
)

// Value is a condition on a header field or query parameter.
type Value struct {
	// Name is compared without regard to case for headers, exactly for
	// parameters.
	Name string
	// Value is compared exactly, or is a regular expression for all of the
	// value.
	Value string
	Regex bool
}

// CompileRegex compiles a regular expression of a route, which must match all
// of its subject. It is RE2: its time is linear in the subject.
func CompileRegex(pattern string) (*regexp.Regexp, error) {
	re, err := regexp.Compile("^(?:" + pattern + ")$")
	if err != nil {
		return nil, fmt.Errorf("compile regular expression %q: %w", pattern, err)
	}
	return re, nil
}

// Request is what rules are matched against.
type Request struct {
	// Host is lowercase, without port; see [NormalizeHost].
	Host string
	// Path is normalised; see [NormalizePath].
	Path   string
	Method string
	// Query is the raw query without "?".
	Query  string
	Fields []http1.Field
}

// Table routes the requests of one port. It is immutable and safe for
// concurrent use.
type Table[T any] struct {
	listeners hosts[*listener[T]]
}

type listener[T any] struct {
	hosts hosts[*virtualHost[T]]
}

// virtualHost holds the rules for one hostname of a listener.
type virtualHost[T any] struct {
	paths paths[T]
	// wider is the next less specific hostname of the same listener.
	wider *virtualHost[T]
}

// Outcome says how a lookup ended.
type Outcome uint8

// The outcomes of a lookup.
const (
	// Found: there is a rule.
	Found Outcome = iota
	// NoHost: no route is for this host.
	NoHost
	// NoRule: there are routes for the host, but no rule matches.
	NoRule
)

// Compile builds a table. When listeners share a hostname the first wins. It
// returns an error for a bad regular expression.
func Compile[T any](listeners []Listener[T]) (*Table[T], error) {
	t := &Table[T]{}
	for _, l := range listeners {
		if _, taken := t.listeners.get(l.Hostname); taken {
			continue
		}
		compiled, err := compileListener(l.Rules)
		if err != nil {
			return nil, err
		}
		t.listeners.set(l.Hostname, compiled)
	}
	return t, nil
}

func compileListener[T any](rules []Rule[T]) (*listener[T], error) {
	byHost := map[string][]Rule[T]{}
	for _, r := range rules {
		byHost[r.Hostname] = append(byHost[r.Hostname], r)
	}
	l := &listener[T]{}
	// Wider hostnames first, so that narrower ones can point at them.
	names := slices.SortedFunc(maps.Keys(byHost), func(a, b string) int {
		return cmp.Or(cmp.Compare(specificity(a), specificity(b)), strings.Compare(a, b))
	})
	for _, name := range names {
		p, err := compilePaths(byHost[name])
		if err != nil {
			return nil, err
		}
		v := &virtualHost[T]{paths: p}
		v.wider, _ = l.hosts.wider(name)
		l.hosts.set(name, v)
	}
	return l, nil
}

// specificity ranks hostnames: any, wildcards by length, then names.
func specificity(hostname string) int {
	switch {
	case hostname == "":
		return 0
	case strings.HasPrefix(hostname, "*."):
		return len(hostname)
	}
	return 1 << 16
}

// Lookup finds the rule for a request.
func (t *Table[T]) Lookup(r *Request) (action T, outcome Outcome) {
	l, ok := t.listeners.find(r.Host)
	if !ok {
		return action, NoHost
	}
	v, ok := l.hosts.find(r.Host)
	if !ok {
		return action, NoHost
	}
	for ; v != nil; v = v.wider {
		if c := v.paths.lookup(r); c != nil {
			return c.action, Found
		}
	}
	return action, NoRule
}

// SameListener tells whether requests for both hosts belong to one listener. A
// request for another listener's host than the one a TLS connection was made
// for is misdirected (RFC 9110 §15.5.20).
func (t *Table[T]) SameListener(a, b string) bool {
	if a == b {
		return true
	}
	la, _ := t.listeners.find(a)
	lb, ok := t.listeners.find(b)
	// An unknown host is no other listener's: it gets its 404.
	return !ok || la == lb
}
