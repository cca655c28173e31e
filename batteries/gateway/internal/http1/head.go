package http1

import (
	"fmt"
	"strings"
)

// maxFields bounds the number of field lines of a head, against heads made to
// cost time rather than memory.
const maxFields = 512

// Request is a parsed request head. Its strings are parts of the head it was
// parsed from. It may be used again for another request, keeping its memory.
type Request struct {
	Method string
	// Target is the request target as sent. Path and Query are its parts, both
	// still encoded; Query has no "?". Path is "*" for the asterisk form and
	// "" for the authority form of CONNECT.
	Target, Path, Query string
	// Minor is the version: 0 for HTTP/1.0, 1 for HTTP/1.1.
	Minor int
	// Host is the authority the request is for, port included: from an
	// absolute target, else from the Host field. "" only in HTTP/1.0.
	Host   string
	Fields []Field
	// Length is the length of the body in bytes: 0 for none, -1 for chunked.
	Length int64
	// Close says that the connection ends after this exchange.
	Close bool
	// Continue says that the client waits for 100 (Continue) before the body.
	Continue bool
	// Upgrade holds the protocol the client wants to change to, or "".
	Upgrade string
	// Trailers says that the client accepts trailer fields.
	Trailers bool
}

// ParseRequest parses a head that ends in an empty line into r. On an error r
// is garbage and the connection cannot be used further.
func ParseRequest(r *Request, head string) error {
	*r = Request{Fields: r.Fields[:0]}
	line, rest, err := cutLine(head)
	if err != nil {
		return err
	}
	method, after, ok := strings.Cut(line, " ")
	target, version, ok2 := strings.Cut(after, " ")
	if !ok || !ok2 || !ValidName(method) {
		return fmt.Errorf("%w: request line", ErrMalformed)
	}
	switch version {
	case "HTTP/1.1":
		r.Minor = 1
	case "HTTP/1.0":
		r.Close = true
	default:
		if strings.HasPrefix(version, "HTTP/") && all(version, classToken|classTarget) {
			return ErrVersion
		}
		return fmt.Errorf("%w: version", ErrMalformed)
	}
	r.Method, r.Target = method, target
	authority, err := r.splitTarget()
	if err != nil {
		return err
	}
	if r.Fields, err = parseFields(r.Fields, rest); err != nil {
		return err
	}
	return r.interpret(authority)
}

// errTarget is built once: the target is split for every request.
var errTarget = fmt.Errorf("%w: request target", ErrMalformed)

// splitTarget fills Path and Query and returns the authority of an absolute
// target (RFC 9112 §3.2).
func (r *Request) splitTarget() (authority string, err error) {
	t := r.Target
	if t == "" || !all(t, classTarget) || strings.IndexByte(t, '#') >= 0 {
		return "", errTarget
	}
	switch {
	case t[0] == '/':
	case r.Method == "CONNECT":
		return t, nil
	case t == "*":
		if r.Method != "OPTIONS" {
			return "", errTarget
		}
		r.Path = t
		return "", nil
	default:
		scheme, rest, ok := strings.Cut(t, "://")
		if !ok || !EqualFold(scheme, "http") && !EqualFold(scheme, "https") {
			return "", errTarget
		}
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		authority, t = rest[:end], rest[end:]
		if authority == "" || !validAuthority(authority) {
			return "", errTarget
		}
		if t == "" || t[0] == '?' {
			// RFC 9112 §3.2.1: an empty path is sent as "/".
			r.Path = "/"
			r.Query = strings.TrimPrefix(t, "?")
			return authority, nil
		}
	}
	r.Path, r.Query, _ = strings.Cut(t, "?")
	if !validEscapes(r.Path) {
		return "", errTarget
	}
	return authority, nil
}

// ValidTarget tells whether s can be the origin form of a request target, or
// "*", and authority what the request is for. HTTP/2 allows more than can be
// sent on over HTTP/1.1.
func ValidTarget(s, authority string) bool {
	if s == "" || s[0] != '/' && s != "*" || !all(s, classTarget) || strings.IndexByte(s, '#') >= 0 {
		return false
	}
	path, _, _ := strings.Cut(s, "?")
	return validEscapes(path) && validAuthority(authority)
}

// validAuthority tells whether s is a host name or address with an optional
// port (RFC 9110 §7.2), without user information. An empty host is valid.
func validAuthority(s string) bool {
	port := ""
	if s != "" && s[0] == '[' {
		end := strings.IndexByte(s, ']')
		if end < 3 {
			return false
		}
		for _, c := range []byte(s[1:end]) {
			if unhex[c] < 0 && c != ':' && c != '.' {
				return false
			}
		}
		if port = s[end+1:]; port == "" {
			return true
		}
		if port[0] != ':' {
			return false
		}
		port = port[1:]
	} else {
		s, port, _ = strings.Cut(s, ":")
		if !all(s, classHost) {
			return false
		}
	}
	for _, c := range []byte(port) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(port) <= 5
}

// validEscapes tells whether every "%" starts a percent-encoded byte other
// than NUL.
func validEscapes(s string) bool {
	for i := strings.IndexByte(s, '%'); i >= 0 && i < len(s); i++ {
		if s[i] != '%' {
			continue
		}
		if i+2 >= len(s) || unhex[s[i+1]] < 0 || unhex[s[i+2]] < 0 {
			return false
		}
		if s[i+1] == '0' && s[i+2] == '0' {
			return false
		}
	}
	return true
}

// unhex maps hexadecimal digits to their value and other bytes to -1.
var unhex = func() (t [256]int8) {
	for i := range t {
		t[i] = -1
	}
	for i := range 10 {
		t['0'+i] = int8(i)
	}
	for i := range 6 {
		t['a'+i], t['A'+i] = int8(10+i), int8(10+i)
	}
	return t
}()

// interpret derives what the fields say about the connection and the body.
func (r *Request) interpret(authority string) error {
	var hosts, lengths, codings int
	keepAlive, upgrade := false, ""
	listsUpgrade := false
	for i := range r.Fields {
		f := &r.Fields[i]
		switch f.Kind {
		case Host:
			hosts++
			r.Host = f.Value
		case ContentLength:
			lengths++
			n, ok := parseLength(f.Value)
			if !ok {
				return fmt.Errorf("%w: Content-Length", ErrMalformed)
			}
			r.Length = n
		case TransferEncoding:
			codings++
			if !EqualFold(f.Value, "chunked") {
				return ErrCoding
			}
		case Expect:
			r.Continue = r.Continue || EqualFold(f.Value, "100-continue")
		case Upgrade:
			upgrade = f.Value
		case TE:
			r.Trailers = r.Trailers || listHas(f.Value, "trailers")
		case Connection:
			for token := range listItems(f.Value) {
				switch {
				case EqualFold(token, "close"):
					r.Close = true
				case EqualFold(token, "keep-alive"):
					keepAlive = true
				case EqualFold(token, "upgrade"):
					listsUpgrade = true
				default:
					nominate(r.Fields, token)
				}
			}
		}
	}
	if hosts > 1 || hosts == 0 && r.Minor == 1 {
		return fmt.Errorf("%w: %d Host fields", ErrMalformed, hosts)
	}
	if !validAuthority(r.Host) {
		return fmt.Errorf("%w: Host", ErrMalformed)
	}
	if authority != "" {
		r.Host = authority
	}
	if lengths > 1 || codings > 1 || lengths > 0 && codings > 0 {
		return fmt.Errorf("%w: ambiguous body length", ErrMalformed)
	}
	if codings > 0 {
		// RFC 9112 §6.1: a sender of 1.0 does not know chunked; its framing is
		// faulty.
		if r.Minor == 0 {
			return fmt.Errorf("%w: Transfer-Encoding in HTTP/1.0", ErrMalformed)
		}
		r.Length = -1
	}
	if r.Minor == 0 {
		r.Close = r.Close && !keepAlive
		r.Continue = false
	} else if listsUpgrade {
		r.Upgrade = upgrade
	}
	return nil
}

// Response is a parsed response head. Like [Request] it may be used again.
type Response struct {
	Status int
	Reason string
	Minor  int
	Fields []Field
	// Length is the length of the body: -1 for chunked, -2 for "until the
	// connection closes".
	Length int64
	// Declared is the value of Content-Length, or -1: the length of the body
	// that a response to HEAD or a 304 leaves out.
	Declared int64
	// Close says that the connection cannot be used again.
	Close bool
}

// UntilClose is the Length of a body that ends with its connection.
const UntilClose = -2

// ParseResponse parses a head that ends in an empty line, answering a request
// with the given method. Informational responses have no body; the caller
// reads on for the final one.
func ParseResponse(r *Response, head, method string) error {
	*r = Response{Fields: r.Fields[:0]}
	line, rest, err := cutLine(head)
	if err != nil {
		return err
	}
	if len(line) < len("HTTP/1.1 200") || line[:7] != "HTTP/1." || line[8] != ' ' {
		return fmt.Errorf("%w: status line", ErrMalformed)
	}
	switch line[7] {
	case '1':
		r.Minor = 1
	case '0':
		r.Close = true
	default:
		return ErrVersion
	}
	for _, c := range []byte(line[9:12]) {
		if c < '0' || c > '9' {
			return fmt.Errorf("%w: status code", ErrMalformed)
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if r.Status < 100 || len(line) > 12 && line[12] != ' ' {
		return fmt.Errorf("%w: status code", ErrMalformed)
	}
	if len(line) > 13 {
		if r.Reason = line[13:]; !ValidValue(r.Reason) {
			return fmt.Errorf("%w: reason phrase", ErrMalformed)
		}
	}
	if r.Fields, err = parseFields(r.Fields, rest); err != nil {
		return err
	}
	return r.interpret(method)
}

func (r *Response) interpret(method string) error {
	lengths, chunked, keepAlive := 0, false, false
	r.Length, r.Declared = UntilClose, -1
	for i := range r.Fields {
		f := &r.Fields[i]
		switch f.Kind {
		case ContentLength:
			n, ok := parseLength(f.Value)
			// A repeated equal length is common among backends and harmless:
			// the framing is written anew (RFC 9110 §8.6).
			if !ok || lengths > 0 && n != r.Length {
				return fmt.Errorf("%w: Content-Length", ErrMalformed)
			}
			lengths++
			r.Length, r.Declared = n, n
		case TransferEncoding:
			if chunked || !EqualFold(f.Value, "chunked") {
				return ErrCoding
			}
			chunked = true
		case Connection:
			for token := range listItems(f.Value) {
				switch {
				case EqualFold(token, "close"):
					r.Close = true
				case EqualFold(token, "keep-alive"):
					keepAlive = true
				case EqualFold(token, "upgrade"):
				default:
					nominate(r.Fields, token)
				}
			}
		}
	}
	if r.Minor == 0 {
		r.Close = r.Close && !keepAlive
	}
	switch {
	case method == "HEAD" || r.Status < 200 || r.Status == 204 || r.Status == 304:
		r.Length = 0
	case chunked && lengths > 0:
		return fmt.Errorf("%w: ambiguous body length", ErrMalformed)
	case chunked:
		r.Length = -1
	case lengths == 0:
		r.Close = true
	}
	return nil
}

// cutLine returns the first line of s without its CRLF, and what follows.
func cutLine(s string) (line, rest string, err error) {
	i := strings.IndexByte(s, '\n')
	if i < 1 || s[i-1] != '\r' {
		return "", "", fmt.Errorf("%w: line end", ErrMalformed)
	}
	return s[:i-1], s[i+1:], nil
}

// parseFields appends the field lines of s, which ends in an empty line.
func parseFields(fields []Field, s string) ([]Field, error) {
	for {
		i := strings.IndexByte(s, '\n')
		if i < 1 || s[i-1] != '\r' {
			return fields, fmt.Errorf("%w: line end", ErrMalformed)
		}
		line := s[:i-1]
		s = s[i+1:]
		if line == "" {
			if s != "" {
				return fields, fmt.Errorf("%w: data after the head", ErrMalformed)
			}
			return fields, nil
		}
		if len(fields) == maxFields {
			return fields, ErrHeadTooLarge
		}
		colon := 0
		for colon < len(line) && class[line[colon]]&classToken != 0 {
			colon++
		}
		// This also refuses space before the colon and folded lines.
		if colon == 0 || colon == len(line) || line[colon] != ':' {
			return fields, fmt.Errorf("%w: field name", ErrMalformed)
		}
		name, value := line[:colon], trimSpace(line[colon+1:])
		if !all(value, classValue) {
			return fields, fmt.Errorf("%w: field value", ErrMalformed)
		}
		fields = append(fields, Field{Name: name, Value: value, Kind: KindOf(name)})
	}
}

// trimSpace removes optional whitespace: spaces and tabs, nothing else.
func trimSpace(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// parseLength parses a Content-Length: digits only, below 2^62.
func parseLength(s string) (int64, bool) {
	if s == "" || len(s) > 19 {
		return 0, false
	}
	var n int64
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		if n = n*10 + int64(s[i]-'0'); n < 0 || n > 1<<62 {
			return 0, false
		}
	}
	return n, true
}

// listItems yields the elements of a comma-separated list (RFC 9110 §5.6.1).
func listItems(s string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for s != "" {
			var item string
			item, s, _ = strings.Cut(s, ",")
			if item = trimSpace(item); item != "" && !yield(item) {
				return
			}
		}
	}
}

// listHas tells whether a list has the given element, parameters aside.
func listHas(list, want string) bool {
	for item := range listItems(list) {
		item, _, _ = strings.Cut(item, ";")
		if EqualFold(trimSpace(item), want) {
			return true
		}
	}
	return false
}

// nominate marks the fields that a Connection field names as hop-by-hop.
// Fields that frame or address the message cannot be nominated away.
func nominate(fields []Field, name string) {
	for i := range fields {
		if f := &fields[i]; EqualFold(f.Name, name) && f.Kind != Host && !f.Kind.HopByHop() {
			f.Kind = nominated
		}
	}
}
