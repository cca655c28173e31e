// Package http1 reads and writes HTTP/1.1 messages (RFC 9112) for a proxy: it
// parses message heads out of a connection's buffer, frames bodies, and
// serialises heads anew.
//
// It promises that two parties on either side of the proxy can never disagree
// about where a message ends: every head it accepts has exactly one meaning,
// and the framing it sends is always its own. It is stricter than RFC 9112
// allows recipients to be: no bare LF, no obsolete line folding, no
// Transfer-Encoding but "chunked", never Content-Length beside
// Transfer-Encoding, no two Content-Length fields, exactly one Host.
//
// It refuses to interpret anything else: routing, filters and policy are the
// caller's. net/http serves HTTP/2; this package exists because net/http's
// HTTP/1 code costs about three times the processor time per proxied request.
//
// Invariant: whatever [ParseRequest] accepts, net/http's ReadRequest accepts
// with the same method, target, fields and body length (checked by fuzzing).
package http1

import "errors"

// Errors of malformed messages. A caller answers 400 to a client, and 502 when
// they come from a backend, unless it is one of the limits below.
var (
	// ErrMalformed is any breach of the grammar of a message.
	ErrMalformed = errors.New("malformed HTTP message")
	// ErrHeadTooLarge means that a head did not end within the limit: 431.
	ErrHeadTooLarge = errors.New("message head too large")
	// ErrBodyTooLarge means that a body passed the caller's limit: 413.
	ErrBodyTooLarge = errors.New("message body too large")
	// ErrVersion is a request of a version other than 1.0 and 1.1: 505.
	ErrVersion = errors.New("unsupported HTTP version")
	// ErrCoding is a Transfer-Encoding other than "chunked": 501.
	ErrCoding = errors.New("unsupported transfer coding")
)

// Kind names the fields a proxy treats specially, so that each name is
// compared once, when it is parsed.
type Kind uint8

// The kinds of fields. Other covers everything that is passed on untouched.
const (
	Other Kind = iota
	Host
	Connection
	ContentLength
	TransferEncoding
	Upgrade
	TE
	Trailer
	Expect
	KeepAlive
	ProxyConnection
	ProxyAuth
	Forwarded
	XForwardedFor
	XForwardedHost
	XForwardedProto
	XForwardedPort
	XRealIP
	ContentType
	Date
	Origin
	nominated // dropped because Connection names it
)

// HopByHop tells whether a field of this kind concerns only one connection
// (RFC 9110 §7.6.1) or is written anew by the proxy, and so is never copied.
func (k Kind) HopByHop() bool {
	switch k {
	case Connection, ContentLength, TransferEncoding, Upgrade, TE, Trailer, KeepAlive, ProxyConnection, ProxyAuth, Expect, nominated:
		return true
	}
	return false
}

// Provenance tells whether a field of this kind says where a request came
// from: a client's own word for it is not to be trusted.
func (k Kind) Provenance() bool {
	switch k {
	case Forwarded, XForwardedFor, XForwardedHost, XForwardedProto, XForwardedPort, XRealIP:
		return true
	}
	return false
}

// Field is one header or trailer field line. Name keeps the sender's spelling;
// Value has no surrounding whitespace.
type Field struct {
	Name, Value string
	Kind        Kind
}

// NewField returns a field with its kind looked up.
func NewField(name, value string) Field {
	return Field{Name: name, Value: value, Kind: KindOf(name)}
}

// KindOf looks a field name up, in any case.
func KindOf(name string) Kind {
	switch len(name) {
	case 2:
		if EqualFold(name, "te") {
			return TE
		}
	case 4:
		switch {
		case EqualFold(name, "host"):
			return Host
		case EqualFold(name, "date"):
			return Date
		}
	case 6:
		switch {
		case EqualFold(name, "expect"):
			return Expect
		case EqualFold(name, "origin"):
			return Origin
		}
	case 7:
		switch {
		case EqualFold(name, "upgrade"):
			return Upgrade
		case EqualFold(name, "trailer"):
			return Trailer
		}
	case 9:
		switch {
		case EqualFold(name, "forwarded"):
			return Forwarded
		case EqualFold(name, "x-real-ip"):
			return XRealIP
		}
	case 10:
		switch {
		case EqualFold(name, "connection"):
			return Connection
		case EqualFold(name, "keep-alive"):
			return KeepAlive
		}
	case 12:
		if EqualFold(name, "content-type") {
			return ContentType
		}
	case 14:
		if EqualFold(name, "content-length") {
			return ContentLength
		}
	case 15:
		if EqualFold(name, "x-forwarded-for") {
			return XForwardedFor
		}
	case 16:
		switch {
		case EqualFold(name, "x-forwarded-host"):
			return XForwardedHost
		case EqualFold(name, "x-forwarded-port"):
			return XForwardedPort
		case EqualFold(name, "proxy-connection"):
			return ProxyConnection
		}
	case 17:
		switch {
		case EqualFold(name, "transfer-encoding"):
			return TransferEncoding
		case EqualFold(name, "x-forwarded-proto"):
			return XForwardedProto
		}
	case 18:
		if EqualFold(name, "proxy-authenticate") {
			return ProxyAuth
		}
	case 19:
		if EqualFold(name, "proxy-authorization") {
			return ProxyAuth
		}
	}
	return Other
}

// EqualFold compares two field names or tokens without regard to ASCII case.
// Unlike strings.EqualFold it folds nothing else: "ſ" is not "s".
func EqualFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if lower[a[i]] != lower[b[i]] {
			return false
		}
	}
	return true
}

// lower maps ASCII capitals to small letters and leaves every other byte.
var lower = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(i)
		if 'A' <= i && i <= 'Z' {
			t[i] += 'a' - 'A'
		}
	}
	return t
}()

// Character classes of the grammar (RFC 9110 §5.6.2, §5.5; RFC 3986).
const (
	classToken  = 1 << iota // tchar
	classValue              // field value: visible, space, tab, obs-text
	classTarget             // request target: visible ASCII
	classHost               // host name
)

var class = func() (t [256]uint8) {
	for i := range t {
		c := byte(i)
		alnum := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if alnum || contains("!#$%&'*+-.^_`|~", c) {
			t[i] |= classToken
		}
		if c == '\t' || c >= ' ' && c != 0x7f {
			t[i] |= classValue
		}
		if c > ' ' && c < 0x7f {
			t[i] |= classTarget
		}
		if alnum || contains("-._~!$&'()*+,;=", c) {
			t[i] |= classHost
		}
	}
	return t
}()

func contains(set string, c byte) bool {
	for i := 0; i < len(set); i++ {
		if set[i] == c {
			return true
		}
	}
	return false
}

// all tells whether every byte of s is of class k. The empty string is.
func all(s string, k uint8) bool {
	for i := 0; i < len(s); i++ {
		if class[s[i]]&k == 0 {
			return false
		}
	}
	return true
}

// ValidName tells whether s can be the name of a field.
func ValidName(s string) bool { return s != "" && all(s, classToken) }

// ValidValue tells whether s can be the value of a field.
func ValidValue(s string) bool { return all(s, classValue) }
