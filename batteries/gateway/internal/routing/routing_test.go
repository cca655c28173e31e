package routing

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
)

func TestLookup(t *testing.T) {
	rule := func(host string, kind PathType, path, action string) Rule[string] {
		return Rule[string]{Hostname: host, Match: Match{PathType: kind, Path: path}, Action: action}
	}
	table := compile(t, []Listener[string]{
		{Hostname: "", Rules: []Rule[string]{
			rule("", Prefix, "/", "any"),
			rule("a.example", Prefix, "/", "a"),
			rule("a.example", Prefix, "/v2", "a-v2"),
			rule("a.example", Prefix, "/v2/x/", "a-v2-x"),
			rule("a.example", Exact, "/v2/x", "a-exact"),
			rule("a.example", Regex, "/v[0-9]+/re", "a-regex"),
			rule("*.example", Prefix, "/wild", "wild"),
			rule("*.b.example", Prefix, "/", "wild-b"),
		}},
		{Hostname: "isolated.example", Rules: []Rule[string]{rule("isolated.example", Prefix, "/only", "only")}},
	})
	tests := []struct{ host, path, want string }{
		{"a.example", "/", "a"},
		{"a.example", "/other", "a"},
		{"a.example", "/v2", "a-v2"},
		{"a.example", "/v2/", "a-v2"},
		{"a.example", "/v2/y", "a-v2"},
		{"a.example", "/v2y", "a"},
		{"a.example", "/v2/x", "a-exact"},
		{"a.example", "/v2/x/", "a-v2-x"},
		{"a.example", "/v2/x/y", "a-v2-x"},
		{"a.example", "/v2/re", "a-regex"},
		{"a.example", "/v2/re/x", "a-v2"},
		{"c.example", "/wild/x", "wild"},
		{"c.example", "/tame", "any"}, // a less specific hostname of the same listener
		{"x.y.b.example", "/wild", "wild-b"},
		{"b.example", "/wild", "wild"},
		{"example", "/wild", "any"},
		{"isolated.example", "/only", "only"},
		{"isolated.example", "/wild", ""}, // the other listener's rules are not its own
		{"a.example", "*", ""},
	}
	for _, tc := range tests {
		got, outcome := table.Lookup(&Request{Host: tc.host, Path: tc.path, Method: "GET"})
		if got != tc.want || (outcome == Found) != (tc.want != "") {
			t.Errorf("%s%s: got %q (%d), want %q", tc.host, tc.path, got, outcome, tc.want)
		}
	}
}

func TestPrecedenceWithinAPath(t *testing.T) {
	old, young := Age{Created: 1, Route: "b/old"}, Age{Created: 2, Route: "a/young"}
	header := func(n int) (v []Value) {
		for i := range n {
			v = append(v, Value{Name: fmt.Sprint("H", i), Value: "1"})
		}
		return v
	}
	table := compile(t, []Listener[string]{{Rules: []Rule[string]{
		{Match: Match{PathType: Prefix, Path: "/"}, Age: young, Action: "young"},
		{Match: Match{PathType: Prefix, Path: "/"}, Age: old, Action: "old"},
		{Match: Match{PathType: Prefix, Path: "/", Headers: header(1)}, Age: young, Action: "header"},
		{Match: Match{PathType: Prefix, Path: "/", Headers: header(2)}, Age: young, Action: "headers"},
		{Match: Match{PathType: Prefix, Path: "/", Query: []Value{{Name: "q", Value: "a b"}}}, Age: young, Action: "query"},
		{Match: Match{PathType: Prefix, Path: "/", Method: "PUT"}, Age: young, Action: "method"},
		{Match: Match{PathType: Prefix, Path: "/", Headers: []Value{{Name: "re", Value: "[ab]+", Regex: true}}}, Age: young, Action: "regex"},
	}}})
	tests := []struct {
		method, query string
		fields        []http1.Field
		want          string
	}{
		{"GET", "", nil, "old"},
		{"PUT", "", []http1.Field{{Name: "h0", Value: "1"}}, "method"},
		{"GET", "", []http1.Field{{Name: "h0", Value: "1"}}, "header"},
		{"GET", "", []http1.Field{{Name: "h0", Value: "1"}, {Name: "H1", Value: "1"}}, "headers"},
		{"GET", "", []http1.Field{{Name: "h0", Value: "1"}, {Name: "H0", Value: "2"}}, "old"},
		{"GET", "x=1&q=a+b", nil, "query"},
		{"GET", "%71=a%20b", nil, "query"},
		{"GET", "q=other&q=a+b", nil, "old"},
		{"GET", "q=%zz", nil, "old"},
		{"GET", "", []http1.Field{{Name: "Re", Value: "abba"}}, "regex"},
		{"GET", "", []http1.Field{{Name: "Re", Value: "abc"}}, "old"},
	}
	for _, tc := range tests {
		got, _ := table.Lookup(&Request{Path: "/", Method: tc.method, Query: tc.query, Fields: tc.fields})
		if got != tc.want {
			t.Errorf("%s ?%s %v: got %q, want %q", tc.method, tc.query, tc.fields, got, tc.want)
		}
	}
}

func TestSameListener(t *testing.T) {
	table := compile(t, []Listener[string]{{Hostname: ""}, {Hostname: "second.org"}, {Hostname: "*.wild.org"}, {Hostname: "fourth.wild.org"}})
	tests := []struct {
		sni, host string
		want      bool
	}{
		{"example.org", "example.org", true},
		{"example.org", "second.org", false},
		{"example.org", "unknown.org", true},
		{"second.org", "example.org", false},
		{"third.wild.org", "fifth.wild.org", true},
		{"third.wild.org", "fourth.wild.org", false},
		{"fourth.wild.org", "fifth.wild.org", false},
	}
	for _, tc := range tests {
		if got := table.SameListener(tc.sni, tc.host); got != tc.want {
			t.Errorf("%s and %s: got %v", tc.sni, tc.host, got)
		}
	}
}

func TestIntersect(t *testing.T) {
	tests := []struct{ a, b, want string }{
		{"", "", ""}, {"", "a.b", "a.b"}, {"a.b", "", "a.b"}, {"a.b", "a.b", "a.b"},
		{"*.b", "a.b", "a.b"}, {"a.b", "*.b", "a.b"}, {"*.b", "x.a.b", "x.a.b"},
		{"*.b", "*.a.b", "*.a.b"}, {"*.a.b", "*.b", "*.a.b"},
		{"*.b", "b", "-"}, {"a.b", "c.b", "-"}, {"*.a.b", "*.c.b", "-"}, {"*.b", "ab", "-"},
	}
	for _, tc := range tests {
		got, ok := Intersect(tc.a, tc.b)
		if !ok {
			got = "-"
		}
		if got != tc.want {
			t.Errorf("%q and %q: got %q, want %q", tc.a, tc.b, got, tc.want)
		}
	}
}

func TestNormalizeHost(t *testing.T) {
	for in, want := range map[string]string{
		"a.b": "a.b", "A.b:80": "a.b", "a.b.": "a.b", "a.b.:80": "a.b", "[::1]:80": "[::1]", "[::1]": "[::1]", "": "",
	} {
		if got := NormalizeHost(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestNormalizePath(t *testing.T) {
	tests := []struct {
		in, want string
		dots     bool
	}{
		{"/", "/", false}, {"/a/b", "/a/b", false}, {"/a//b", "/a//b", false}, {"/.a/..b/c.", "/.a/..b/c.", false},
		{"/a/../b", "/b", true}, {"/a/./b", "/a/b", true}, {"/..", "/", true}, {"/a/..", "/", true}, {"/a/b/..", "/a/", true}, {"/a/.", "/a/", true},
		{"/%61dmin", "/admin", false}, {"/a%2fb", "/a%2Fb", false}, {"/a/%2e%2E/b", "/b", true}, {"/%2e", "/", true}, {"/a%20b", "/a%20b", false},
		{"/x/.../y", "/x/.../y", false}, {"/x/.y/..", "/x/", true}, {"/../../a", "/a", true}, {"//..//a", "//a", true},
	}
	for _, tc := range tests {
		got, dots := NormalizePath(tc.in)
		if got != tc.want || dots != tc.dots {
			t.Errorf("%q: got %q, %v; want %q, %v", tc.in, got, dots, tc.want, tc.dots)
		}
	}
}

func FuzzNormalizePath(f *testing.F) {
	f.Add("/a/../%2e/./b%2Fc")
	f.Fuzz(func(t *testing.T, in string) {
		if !strings.HasPrefix(in, "/") || !regexp.MustCompile(`^([^%]|%[0-9a-fA-F]{2})*$`).MatchString(in) {
			return
		}
		got, _ := NormalizePath(in)
		if again, dots := NormalizePath(got); again != got || dots {
			t.Errorf("%q becomes %q, and that %q", in, got, again)
		}
		for _, s := range strings.Split(got, "/") {
			if s == "." || s == ".." {
				t.Errorf("%q keeps a dot segment: %q", in, got)
			}
		}
		if !strings.HasPrefix(got, "/") {
			t.Errorf("%q loses its slash: %q", in, got)
		}
	})
}

// naive scans every rule, as the package promises to be equal to.
func naive(listeners []Listener[string], r *Request) string {
	matchesHost := func(pattern string) int {
		suffix, wild := strings.CutPrefix(pattern, "*")
		switch {
		case pattern == "":
			return 0
		case wild && strings.HasSuffix(r.Host, suffix) && len(r.Host) > len(suffix):
			return len(pattern)
		case pattern == r.Host:
			return 1000
		}
		return -1
	}
	var l *Listener[string]
	for i := range listeners {
		if got := matchesHost(listeners[i].Hostname); got >= 0 && (l == nil || got > matchesHost(l.Hostname)) {
			l = &listeners[i]
		}
	}
	if l == nil {
		return ""
	}
	var best *Rule[string]
	better := func(a, b *Rule[string]) bool {
		pathRank := func(r *Rule[string]) int {
			switch r.Match.PathType {
			case Exact:
				return 1 << 20
			case Regex:
				return 1<<19 + len(r.Match.Path)
			}
			return len(strings.TrimSuffix(r.Match.Path, "/"))
		}
		for _, d := range []int{
			matchesHost(a.Hostname) - matchesHost(b.Hostname),
			pathRank(a) - pathRank(b),
			strings.Compare(regexOf(b), regexOf(a)),
			len(a.Match.Method) - len(b.Match.Method),
			len(a.Match.Headers) - len(b.Match.Headers),
			len(a.Match.Query) - len(b.Match.Query),
			b.Age.Compare(a.Age),
		} {
			if d != 0 {
				return d > 0
			}
		}
		return false
	}
	for i := range l.Rules {
		rule := &l.Rules[i]
		if matchesHost(rule.Hostname) < 0 || !naiveMatches(&rule.Match, r) {
			continue
		}
		if best == nil || better(rule, best) {
			best = rule
		}
	}
	if best == nil {
		return ""
	}
	return best.Action
}

func regexOf(r *Rule[string]) string {
	if r.Match.PathType == Regex {
		return r.Match.Path
	}
	return ""
}

func naiveMatches(m *Match, r *Request) bool {
	switch m.PathType {
	case Exact:
		if r.Path != m.Path {
			return false
		}
	case Regex:
		if !regexp.MustCompile("^(?:" + m.Path + ")$").MatchString(r.Path) {
			return false
		}
	case Prefix:
		if !strings.HasPrefix(r.Path+"/", strings.TrimSuffix(m.Path, "/")+"/") {
			return false
		}
	}
	if m.Method != "" && m.Method != r.Method {
		return false
	}
	for _, h := range m.Headers {
		found := false
		for _, f := range r.Fields {
			found = found || strings.EqualFold(f.Name, h.Name) && f.Value == h.Value
		}
		if !found {
			return false
		}
	}
	for _, q := range m.Query {
		if !strings.HasPrefix("&"+r.Query+"&", "&"+q.Name+"="+q.Value+"&") && !strings.Contains("&"+r.Query+"&", "&"+q.Name+"="+q.Value+"&") {
			return false
		}
	}
	return true
}

func FuzzLookupEqualsScan(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		pick := func(from ...string) string { return from[rnd.IntN(len(from))] }
		hostnames := []string{"", "a.x", "b.x", "*.x", "*.a.x", "c.a.x"}
		var listeners []Listener[string]
		for _, h := range rnd.Perm(len(hostnames))[:1+rnd.IntN(4)] {
			l := Listener[string]{Hostname: hostnames[h]}
			for i := range rnd.IntN(40) {
				host, ok := Intersect(l.Hostname, pick(hostnames...))
				if !ok {
					continue
				}
				m := Match{PathType: PathType(rnd.IntN(3))}
				switch m.PathType {
				case Regex:
					m.Path = pick("/[ab]+", "/a/.*", ".*")
				default:
					m.Path = pick("/", "/a", "/a/", "/a/b", "/a/b/c", "/b", "/ab")
				}
				m.Method = pick("", "", "GET", "PUT")
				for range rnd.IntN(3) {
					m.Headers = append(m.Headers, Value{Name: pick("H", "h", "K"), Value: pick("1", "2", "3")})
				}
				if rnd.IntN(3) == 0 {
					m.Query = append(m.Query, Value{Name: "q", Value: pick("1", "2")})
				}
				l.Rules = append(l.Rules, Rule[string]{Hostname: host, Match: m,
					Age: Age{Created: int64(rnd.IntN(3)), Route: pick("a/a", "b/b"), Rule: i}, Action: fmt.Sprint(h, "/", i)})
			}
			listeners = append(listeners, l)
		}
		table := compile(t, listeners)
		for range 50 {
			r := &Request{
				Host: pick("a.x", "b.x", "x", "c.a.x", "d.c.a.x", "other", ""), Method: pick("GET", "PUT", "POST"),
				Path: pick("/", "/a", "/a/", "/a/b", "/a/b/c/d", "/ab", "/b/", "/c", "//a"), Query: pick("", "q=1", "x=2&q=2"),
			}
			for range rnd.IntN(3) {
				name := pick("H", "k")
				if _, dup := headerValue(r.Fields, name); !dup {
					r.Fields = append(r.Fields, http1.Field{Name: name, Value: pick("1", "2")})
				}
			}
			got, _ := table.Lookup(r)
			if want := naive(listeners, r); got != want {
				t.Fatalf("%s %s%s?%s %v: got %q, the scan finds %q", r.Method, r.Host, r.Path, r.Query, r.Fields, got, want)
			}
		}
	})
}

func compile(t testing.TB, listeners []Listener[string]) *Table[string] {
	t.Helper()
	table, err := Compile(listeners)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestLookupDoesNotAllocate(t *testing.T) {
	table, r := manyRoutes(t, 1000)
	if n := testing.AllocsPerRun(100, func() { table.Lookup(r) }); n != 0 {
		t.Errorf("a lookup allocates %v times", n)
	}
}

// manyRoutes returns a table of n hosts with five paths each, and a request
// for one of them.
func manyRoutes(t testing.TB, n int) (*Table[string], *Request) {
	l := Listener[string]{}
	for i := range n {
		for j, path := range []string{"/", "/api", "/api/v1", "/static", "/api/v1/users"} {
			l.Rules = append(l.Rules, Rule[string]{
				Hostname: fmt.Sprintf("app-%d.example.org", i), Action: "x",
				Match: Match{PathType: Prefix, Path: path}, Age: Age{Route: fmt.Sprint(i), Rule: j},
			})
		}
	}
	return compile(t, []Listener[string]{l}), &Request{Host: fmt.Sprintf("app-%d.example.org", n/2), Path: "/api/v1/users/42", Method: "GET"}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10, 5000, 50000} {
		b.Run(fmt.Sprint("hosts=", n), func(b *testing.B) {
			table, r := manyRoutes(b, n)
			b.ReportAllocs()
			for b.Loop() {
				table.Lookup(r)
			}
		})
		b.Run(fmt.Sprint("paths=", n), func(b *testing.B) {
			l := Listener[string]{}
			for i := range n {
				l.Rules = append(l.Rules, Rule[string]{Match: Match{PathType: Prefix, Path: fmt.Sprintf("/team-%d/app-%d", i%100, i)}, Action: "x"})
			}
			table := compile(b, []Listener[string]{l})
			r := &Request{Path: fmt.Sprintf("/team-%d/app-%d/index.html", n/2%100, n/2)}
			b.ReportAllocs()
			for b.Loop() {
				table.Lookup(r)
			}
		})
		b.Run(fmt.Sprint("headers=", n), func(b *testing.B) {
			l := Listener[string]{}
			for i := range n {
				l.Rules = append(l.Rules, Rule[string]{Match: Match{PathType: Prefix, Path: "/", Headers: []Value{{Name: "X-Tenant", Value: fmt.Sprint(i)}}}, Action: "x"})
			}
			table := compile(b, []Listener[string]{l})
			r := &Request{Path: "/", Fields: []http1.Field{{Name: "accept", Value: "*/*"}, {Name: "x-tenant", Value: fmt.Sprint(n / 2)}}}
			b.ReportAllocs()
			for b.Loop() {
				table.Lookup(r)
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		manyRoutes(b, 5000)
	}
}
