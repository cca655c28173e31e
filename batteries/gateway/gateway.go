// Package gateway is the way into the cluster: it serves the Gateway API on the
// machines' ports 80 and 443, with a data plane of its own.
//
// It promises what the Gateway API v1.6 says of GatewayClass, Gateway,
// ListenerSet, HTTPRoute, GRPCRoute, ReferenceGrant and BackendTLSPolicy, and
// that no change of any of them, of endpoints, of certificates or of the
// gateway itself fails a request. It refuses what it cannot do as written, in
// the object's status, and never serves it halfway.
//
// The parts are in internal: http1 reads and writes HTTP/1.1, routing finds
// rules, upstream keeps backends, proxy joins them to the data plane; translate
// turns objects into what the data plane does, control follows the cluster.
//
// Invariant: the data plane serves exactly what translate makes of the objects
// in the cluster; nothing else configures it while it runs.
package gateway

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/emerald-platform/emerald/battery"
)

// Battery is the cluster's gateway.
var Battery = battery.Battery{
	Name:  "gateway",
	Doc:   "Apps are reached from outside by host and path, over HTTP, HTTPS, gRPC and WebSocket.",
	Where: battery.Own,
	Config: Config{
		HTTPPort: 80, HTTPSPort: 443, AccessLog: AccessErrors, AccessLogSample: 100, ServiceType: corev1.ServiceTypeClusterIP,
		Limits: Limits{
			HeadBytes: 64 << 10, BodyBytes: 16 << 30, HeadSeconds: 15, IdleSeconds: 75, StallSeconds: 60,
			ConnectSeconds: 3, BackendSeconds: 60, Attempts: 3,
		},
	},
	Manifests: manifests,
	Run:       run,
	Proofs:    proofs,
}

// Config is what the user may set under "gateway" in the Platform.
type Config struct {
	// HTTPPort and HTTPSPort are the ports of the machines, and of the default
	// Gateway's listeners.
	HTTPPort  int32 `json:"httpPort"`
	HTTPSPort int32 `json:"httpsPort"`

	// AccessLog says which requests are logged as JSON lines.
	AccessLog AccessLog `json:"accessLog"`

	// AccessLogSample is how many successful requests there are per one that
	// AccessSampled logs.
	AccessLogSample int32 `json:"accessLogSample"`

	// Limits bound what clients and backends may ask of the gateway.
	Limits Limits `json:"limits"`

	// TrustedProxies are the networks, as CIDR, of load balancers in front of
	// the gateway, whose X-Forwarded fields are believed.
	TrustedProxies []string `json:"trustedProxies,omitempty"`

	// Listeners are added to the default Gateway.
	Listeners []Listener `json:"listeners,omitempty"`

	// ServiceType is the type of the Services made for other Gateways:
	// ClusterIP, or LoadBalancer where something gives those addresses.
	ServiceType corev1.ServiceType `json:"serviceType"`
}

// AccessLog is a way to choose requests for the access log.
type AccessLog string

const (
	// AccessOff logs none.
	AccessOff AccessLog = "off"
	// AccessErrors logs those answered with 5xx.
	AccessErrors AccessLog = "errors"
	// AccessSampled logs errors and some of the others.
	AccessSampled AccessLog = "sampled"
	// AccessAll logs all.
	AccessAll AccessLog = "all"
)

// Limits bound requests and connections.
type Limits struct {
	// HeadBytes is the most bytes of a request's or response's head: more from
	// a client is answered with 431.
	HeadBytes int32 `json:"headBytes"`

	// BodyBytes is the most bytes of a request's body, 0 for any number: more
	// is answered with 413.
	BodyBytes int64 `json:"bodyBytes"`

	// HeadSeconds bounds a TLS handshake, and receiving a request's head: 408.
	HeadSeconds int32 `json:"headSeconds"`

	// IdleSeconds is how long a client's connection may wait for a request.
	IdleSeconds int32 `json:"idleSeconds"`

	// StallSeconds is how long a client may neither send nor take a byte while
	// a body is under way.
	StallSeconds int32 `json:"stallSeconds"`

	// ConnectSeconds bounds connecting to an endpoint.
	ConnectSeconds int32 `json:"connectSeconds"`

	// BackendSeconds bounds the wait for a response to begin, where the route
	// sets no timeout: 504.
	BackendSeconds int32 `json:"backendSeconds"`

	// Attempts is the most endpoints that one request is tried on.
	Attempts int32 `json:"attempts"`
}

// Listener is an additional listener of the default Gateway.
type Listener struct {
	// Name is the listener's name.
	Name string `json:"name"`

	// Hostname is a name, or "*." before one; empty means any.
	Hostname string `json:"hostname,omitempty"`

	// Port is the machines' port.
	Port int32 `json:"port"`

	// Protocol is HTTP or HTTPS. The certificate of HTTPS listeners is made by
	// the platform, in a Secret that has the listener's name.
	Protocol string `json:"protocol"`
}
