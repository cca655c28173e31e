package routing

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// paths holds the rules of one hostname by path.
type paths[T any] struct {
	exact   map[string]*choices[T]
	regexes []regexPath[T]
	prefix  segment[T] // the root, which is the prefix "/"
}

type regexPath[T any] struct {
	re      *regexp.Regexp
	choices *choices[T]
}

// segment is a node of the tree of path prefixes, one path segment per level.
type segment[T any] struct {
	children map[string]*segment[T]
	choices  *choices[T] // nil where no rule has exactly this prefix
	// shorter is the nearest ancestor with choices.
	shorter *segment[T]
}

func compilePaths[T any](rules []Rule[T]) (paths[T], error) {
	p := paths[T]{exact: map[string]*choices[T]{}}
	type key struct {
		kind PathType
		path string
	}
	byPath := map[key][]Rule[T]{}
	for _, r := range rules {
		k := key{r.Match.PathType, r.Match.Path}
		if k.kind == Prefix {
			k.path = strings.TrimSuffix(k.path, "/")
		}
		byPath[k] = append(byPath[k], r)
	}
	for k, group := range byPath {
		c, err := compileChoices(group)
		if err != nil {
			return p, err
		}
		switch k.kind {
		case Exact:
			p.exact[k.path] = c
		case Prefix:
			p.prefix.child(k.path).choices = c
		case Regex:
			re, err := CompileRegex(k.path)
			if err != nil {
				return p, err
			}
			p.regexes = append(p.regexes, regexPath[T]{re, c})
		}
	}
	slices.SortFunc(p.regexes, func(a, b regexPath[T]) int {
		x, y := a.re.String(), b.re.String()
		return cmp.Or(cmp.Compare(len(y), len(x)), strings.Compare(x, y))
	})
	p.prefix.link(nil)
	return p, nil
}

// child returns the node of a prefix without trailing slash, making it and
// those above it when missing.
func (s *segment[T]) child(prefix string) *segment[T] {
	for rest := prefix; rest != ""; {
		var name string
		name, rest = cutSegment(rest)
		next := s.children[name]
		if next == nil {
			if s.children == nil {
				s.children = map[string]*segment[T]{}
			}
			next = &segment[T]{}
			s.children[name] = next
		}
		s = next
	}
	return s
}

// link fills in shorter for the tree below s.
func (s *segment[T]) link(shorter *segment[T]) {
	s.shorter = shorter
	if s.choices != nil {
		shorter = s
	}
	for _, c := range s.children {
		c.link(shorter)
	}
}

// cutSegment takes the first segment, after its slash, off a path.
func cutSegment(path string) (name, rest string) {
	path = path[1:]
	if i := strings.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

// lookup returns the best choice for a request, or nil.
func (p *paths[T]) lookup(r *Request) *choice[T] {
	if c := p.exact[r.Path].lookup(r); c != nil {
		return c
	}
	for i := range p.regexes {
		if p.regexes[i].re.MatchString(r.Path) {
			if c := p.regexes[i].choices.lookup(r); c != nil {
				return c
			}
		}
	}
	if r.Path == "" || r.Path[0] != '/' {
		return nil
	}
	s := &p.prefix
	for rest := r.Path; rest != ""; {
		var name string
		name, rest = cutSegment(rest)
		next := s.children[name]
		if next == nil {
			break
		}
		s = next
	}
	for ; s != nil; s = s.shorter {
		if c := s.choices.lookup(r); c != nil {
			return c
		}
	}
	return nil
}

// NormalizePath returns the form of a request's path that rules are matched
// against: percent-encoded unreserved characters decoded, other escapes in
// capitals, dot segments removed (RFC 3986 §6.2.2). An encoded slash stays
// encoded, and so is no separator. Dots tells whether there were dot segments,
// which a backend must not see: it might resolve them past the rule that was
// matched.
//
// The path must be valid: starting with "/", each "%" before two hexadecimal
// digits. Only paths that change allocate.
func NormalizePath(path string) (normal string, dots bool) {
	if strings.IndexByte(path, '%') >= 0 {
		path = decodeUnreserved(path)
	}
	if !hasDots(path) {
		return path, false
	}
	return removeDots(path), true
}

// hasDots tells whether a segment of path is "." or "..".
func hasDots(path string) bool {
	for i := strings.Index(path, "/."); i >= 0; {
		rest := path[i+2:]
		if rest == "" || rest[0] == '/' || rest[0] == '.' && (len(rest) == 1 || rest[1] == '/') {
			return true
		}
		j := strings.Index(rest, "/.")
		if j < 0 {
			return false
		}
		i += 2 + j
	}
	return false
}

// removeDots removes dot segments (RFC 3986 §5.2.4).
func removeDots(path string) string {
	out := make([]byte, 0, len(path))
	for rest := path; rest != ""; {
		var name string
		name, rest = cutSegment(rest)
		switch name {
		case "..":
			out = out[:max(0, strings.LastIndexByte(string(out), '/'))]
			fallthrough
		case ".":
			if rest == "" {
				out = append(out, '/')
			}
		default:
			out = append(out, '/')
			out = append(out, name...)
		}
	}
	return string(out)
}

func decodeUnreserved(path string) string {
	out := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		if path[i] != '%' || i+2 >= len(path) {
			out = append(out, path[i])
			continue
		}
		c := fromHex(path[i+1])<<4 | fromHex(path[i+2])
		if unreserved(c) {
			out = append(out, c)
		} else {
			out = append(out, '%', upper(path[i+1]), upper(path[i+2]))
		}
		i += 2
	}
	return string(out)
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'f' {
		return c - 'a' + 'A'
	}
	return c
}

func fromHex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	}
	return c - 'A' + 10
}
