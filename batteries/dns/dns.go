// Package dns gives the cluster its names: those of services and pods, those of
// the platform's own domain, and, through the machine's resolvers, everyone
// else's.
//
// It promises that a name inside the cluster is answered from the cluster's
// present state alone, that every name under the platform's domain leads to the
// gateway, and that what the outside says is passed on unchanged. It refuses to
// guess: a name that does not exist is NXDOMAIN, and one that nobody could be
// asked about is SERVFAIL, never the other way round. It never asks a resolver
// that may be itself.
//
// Invariant: the server's configuration is a pure function of the [Config], the
// Site and the list of resolvers; see corefile.
package dns

import (
	"github.com/emerald-platform/emerald/battery"
)

// Battery is the cluster's DNS, served by CoreDNS.
var Battery = battery.Battery{
	Name:      "dns",
	Doc:       "Names of services, pods and apps resolve in every pod, and the outside world's do too.",
	Where:     battery.Own,
	Config:    Config{CacheSeconds: 30, TTLSeconds: 5, Pods: PodsInsecure},
	Manifests: manifests,
	Run:       run,
	Proofs:    proofs,
}

// Config is what the user may set under "dns" in the Platform.
type Config struct {
	// Upstreams are the resolvers asked about names outside the cluster, each
	// an IP address, "IP:port", or "tls://IP%name" for DNS over TLS to a server
	// whose certificate carries that name. They are asked in this order. Empty
	// means the resolvers of the machine.
	Upstreams []string `json:"upstreams,omitempty"`

	// StubDomains maps a domain to the resolvers that alone are asked about it
	// and everything below it, written like Upstreams.
	StubDomains map[string][]string `json:"stubDomains,omitempty"`

	// Hosts maps names outside the cluster to fixed addresses, as a hosts file
	// does.
	Hosts map[string][]string `json:"hosts,omitempty"`

	// CacheSeconds is how long, at most, an answer from outside is kept, 0 to
	// 3600; 0 keeps none. The cluster's own names are never cached.
	CacheSeconds int32 `json:"cacheSeconds"`

	// TTLSeconds is how long a client may keep an answer about the cluster's
	// own names, 0 to 3600.
	TTLSeconds int32 `json:"ttlSeconds"`

	// Pods says how names like 10-42-0-7.team.pod.cluster.local are answered.
	Pods PodNames `json:"pods"`
}

// PodNames is a way to answer names made of a pod's address.
type PodNames string

const (
	// PodsDisabled answers NXDOMAIN.
	PodsDisabled PodNames = "disabled"
	// PodsInsecure answers with the address in the name, whether there is such
	// a pod or not, as most clusters do.
	PodsInsecure PodNames = "insecure"
	// PodsVerified answers only when a pod of that namespace has the address.
	// It costs a watch on every pod of the cluster per copy of the server.
	PodsVerified PodNames = "verified"
)
