// Package model describes what the data plane is to do, as plain data between
// the translation of Kubernetes objects and the proxy: which ports to listen
// on, which rules answer there, and which backends they reach.
//
// It promises to hold no live thing: no connection, clock or client. It
// refuses Kubernetes types: whoever reads it needs to know HTTP only.
//
// Invariant: a Config and everything it points at is never changed once it was
// handed over.
package model

import (
	"crypto/tls"
	"crypto/x509"
	"time"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/http1"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/routing"
)

// Config is one state of the data plane.
type Config struct {
	// Ports are ordered by Target and have distinct ones.
	Ports []Port
	// Backends describes every backend that a rule refers to.
	Backends map[BackendID]BackendSpec
}

// Port is one port of a gateway.
type Port struct {
	// Target is the port the process listens on.
	Target uint16
	// Number is the port clients use, as in the listeners' specification.
	Number uint16
	// Gateway is the namespace/name of the gateway, for logs and metrics.
	Gateway string
	// TLS says that clients speak TLS.
	TLS       bool
	Listeners []Listener
}

// Listener is one listener of a port.
type Listener struct {
	// Hostname and Rules are as in [routing.Listener].
	Hostname string
	Rules    []routing.Rule[Action]
	// Certificates are offered to clients that ask for Hostname; the first
	// that suits a client is used. Not empty on a TLS port.
	Certificates []*tls.Certificate
}

// Action is what a match of a rule leads to.
type Action struct {
	Rule *Rule
	// Prefix is the path prefix that matched, without trailing slash, for
	// rewrites that replace it.
	Prefix string
}

// Rule says how requests are answered. Rules are shared by all their matches.
type Rule struct {
	// Route is the kind/namespace/name it comes from, for logs and metrics.
	Route string
	// RequestTimeout bounds the whole exchange, BackendTimeout each attempt at
	// a backend. Zero is the default, negative is none.
	RequestTimeout, BackendTimeout time.Duration
	Filters                        Filters
	// Backends share the requests by weight. With none, and no redirect, the
	// answer is 500.
	Backends []Backend
}

// Filters are what happens to a request and its response.
type Filters struct {
	RequestHeaders, ResponseHeaders *HeaderEdit
	Redirect                        *Redirect
	Rewrite                         *Rewrite
	CORS                            *CORS
	Mirrors                         []Mirror
}

// Backend is one destination of a rule.
type Backend struct {
	ID BackendID
	// Weight is its share, above zero.
	Weight uint32
	// Problem, if not empty, says why requests cannot be sent; they are
	// answered with 500.
	Problem string
	// RequestHeaders and ResponseHeaders apply after the rule's own.
	RequestHeaders, ResponseHeaders *HeaderEdit
	Rewrite                         *Rewrite
	Mirrors                         []Mirror
}

// BackendID names a backend: one port of a Service, and how to speak to it.
type BackendID struct {
	Namespace, Service string
	Port               int32
	Protocol           Protocol
	// TLS identifies the backend's [BackendTLS]; "" means plain text.
	TLS string
}

// Protocol is how a backend is spoken to.
type Protocol uint8

// The protocols of backends.
const (
	HTTP1 Protocol = iota
	// HTTP2 is with prior knowledge in plain text, by ALPN over TLS.
	HTTP2
)

// BackendSpec is what is known of a backend beside its endpoints.
type BackendSpec struct {
	// TLS is nil for plain text.
	TLS *BackendTLS
}

// BackendTLS says how a backend proves who it is.
type BackendTLS struct {
	// ServerName is sent as SNI, and verified unless SANs is set.
	ServerName string
	// Roots verifies the backend's certificate; nil means the system's.
	Roots *x509.CertPool
	// SANs, if not empty, must have one that the certificate carries: a DNS
	// name, or a URI when it contains "://".
	SANs []string
}

// HeaderEdit changes fields: removed ones go first, then set ones replace,
// then added ones are appended.
type HeaderEdit struct {
	Remove   []string
	Set, Add []http1.Field
}

// PathEdit changes a path.
type PathEdit struct {
	// Full replaces the whole path, if not empty.
	Full string
	// Prefix replaces the matched prefix, if Full is empty.
	Prefix string
}

// Rewrite changes the request for the backend.
type Rewrite struct {
	// Hostname replaces the Host field, if not empty.
	Hostname string
	// Path changes the path, if not nil.
	Path *PathEdit
}

// Redirect answers with a Location made of the request's own URL, with the
// non-zero parts replaced.
type Redirect struct {
	Scheme, Hostname string
	Port             uint16
	Path             *PathEdit
	Status           int
}

// CORS answers cross-origin requests (Fetch standard, "HTTP-network").
type CORS struct {
	// Origins are exact, "*", or have one "*" in the host for any characters.
	Origins []string
	// Methods and Headers may be "*".
	Methods, Headers, Expose []string
	Credentials              bool
	// MaxAge is in seconds; zero leaves it to the browser.
	MaxAge int32
}

// Mirror sends copies of requests to a backend and ignores its answers.
type Mirror struct {
	ID BackendID
	// Numerator of Denominator requests are copied.
	Numerator, Denominator uint32
}
