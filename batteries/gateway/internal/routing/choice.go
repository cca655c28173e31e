package routing

import (
	"cmp"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
)

// choices are the rules of one hostname and path, best first. A nil *choices
// has none.
type choices[T any] struct {
	list []choice[T]
	// byHeader leads from an exact header condition to the positions in list
	// of the rules that have it as their first; rest holds the positions of
	// the others. Only long lists have it.
	byHeader []headerIndex
	rest     []int
}

type headerIndex struct {
	name    string
	byValue map[string][]int
}

// indexFrom is the length from which a list gets an index.
const indexFrom = 9

// choice is one rule at its path.
type choice[T any] struct {
	method  string
	headers []condition
	query   []condition
	action  T
}

// condition is a compiled Value.
type condition struct {
	name, value string
	re          *regexp.Regexp
}

func compileChoices[T any](rules []Rule[T]) (*choices[T], error) {
	slices.SortStableFunc(rules, compareRules)
	c := &choices[T]{list: make([]choice[T], 0, len(rules))}
	for _, r := range rules {
		headers, err := compileConditions(r.Match.Headers)
		if err != nil {
			return nil, err
		}
		query, err := compileConditions(r.Match.Query)
		if err != nil {
			return nil, err
		}
		c.list = append(c.list, choice[T]{method: r.Match.Method, headers: headers, query: query, action: r.Action})
		if r.Match.Method == "" && len(headers) == 0 && len(query) == 0 {
			break // nothing after it can be chosen
		}
	}
	if len(c.list) >= indexFrom {
		c.index()
	}
	return c, nil
}

// compareRules orders rules of one hostname and path by precedence.
func compareRules[T any](a, b Rule[T]) int {
	return cmp.Or(
		preferTrue(a.Match.Method != "", b.Match.Method != ""),
		cmp.Compare(len(b.Match.Headers), len(a.Match.Headers)),
		cmp.Compare(len(b.Match.Query), len(a.Match.Query)),
		a.Age.Compare(b.Age),
	)
}

// Compare orders ages: the older rule first.
func (a Age) Compare(b Age) int {
	return cmp.Or(cmp.Compare(a.Created, b.Created), strings.Compare(a.Route, b.Route), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Match, b.Match))
}

func preferTrue(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func compileConditions(values []Value) ([]condition, error) {
	var out []condition
	for _, v := range values {
		c := condition{name: v.Name, value: v.Value}
		if v.Regex {
			re, err := CompileRegex(v.Value)
			if err != nil {
				return nil, err
			}
			c.re = re
		}
		out = append(out, c)
	}
	return out, nil
}

func (c *choices[T]) index() {
	at := map[string]int{}
	for pos := range c.list {
		i := slices.IndexFunc(c.list[pos].headers, func(h condition) bool { return h.re == nil })
		if i < 0 {
			c.rest = append(c.rest, pos)
			continue
		}
		h := c.list[pos].headers[i]
		name := strings.ToLower(h.name)
		n, ok := at[name]
		if !ok {
			n = len(c.byHeader)
			at[name] = n
			c.byHeader = append(c.byHeader, headerIndex{name, map[string][]int{}})
		}
		m := c.byHeader[n].byValue
		m[h.value] = append(m[h.value], pos)
	}
}

// lookup returns the first choice that matches, or nil.
func (c *choices[T]) lookup(r *Request) *choice[T] {
	if c == nil {
		return nil
	}
	if c.byHeader == nil {
		for i := range c.list {
			if c.list[i].matches(r) {
				return &c.list[i]
			}
		}
		return nil
	}
	best := c.firstOf(c.rest, r, len(c.list))
	for i := range c.byHeader {
		if value, ok := headerValue(r.Fields, c.byHeader[i].name); ok {
			best = c.firstOf(c.byHeader[i].byValue[value], r, best)
		}
	}
	if best == len(c.list) {
		return nil
	}
	return &c.list[best]
}

// firstOf returns the first of the ascending positions below best that
// matches, or best.
func (c *choices[T]) firstOf(positions []int, r *Request, best int) int {
	for _, pos := range positions {
		if pos >= best {
			break
		}
		if c.list[pos].matches(r) {
			return pos
		}
	}
	return best
}

func (c *choice[T]) matches(r *Request) bool {
	if c.method != "" && c.method != r.Method {
		return false
	}
	for i := range c.headers {
		if value, ok := headerValue(r.Fields, c.headers[i].name); !ok || !c.headers[i].holds(value) {
			return false
		}
	}
	for i := range c.query {
		if value, ok := queryValue(r.Query, c.query[i].name); !ok || !c.query[i].holds(value) {
			return false
		}
	}
	return true
}

func (c *condition) holds(value string) bool {
	if c.re != nil {
		return c.re.MatchString(value)
	}
	return c.value == value
}

// headerValue returns the value of a header; repeated ones are joined with
// commas (RFC 9110 §5.3).
func headerValue(fields []http1.Field, name string) (value string, ok bool) {
	for i := range fields {
		if !http1.EqualFold(fields[i].Name, name) {
			continue
		}
		if ok {
			value += "," + fields[i].Value
		} else {
			value, ok = fields[i].Value, true
		}
	}
	return value, ok
}

// queryValue returns the decoded value of the first parameter of a query with
// this name.
func queryValue(query, name string) (value string, ok bool) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		key, v, _ := strings.Cut(pair, "=")
		if key != name {
			if strings.IndexAny(key, "%+") < 0 {
				continue
			}
			if decoded, err := url.QueryUnescape(key); err != nil || decoded != name {
				continue
			}
		}
		if strings.IndexAny(v, "%+") < 0 {
			return v, true
		}
		decoded, err := url.QueryUnescape(v)
		return decoded, err == nil
	}
	return "", false
}
