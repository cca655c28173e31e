// Package registry keeps the platform's container images: those that are built
// or pushed here, and copies of other registries', in one place that every node
// pulls from.
//
// It promises that an image whose push was acknowledged is there after any crash
// and power loss, that it passes the public conformance suite of the OCI
// distribution specification without a failure, and that an image which was once
// pulled through it is served when its origin is gone. Who may do what is decided
// by Kubernetes: passwords are its tokens, rights are its roles. It refuses
// everything to whoever is not logged in.
//
// Invariant: one process owns the directory. What it keeps in memory (locks,
// quotas, what the collector must leave alone) is never shared with another.
package registry

import (
	"github.com/emerald-platform/emerald/battery"
)

// Battery is the platform's image registry.
var Battery = battery.Battery{
	Name: "registry",
	Doc:  "Container images have a home in the cluster, by the OCI standard, with access by Kubernetes roles.",
	// The certificate, and the definition of routes.
	Needs: []string{"certs", "gateway"},
	Where: battery.Own,
	Config: Config{
		Quota: "20Gi", MaxBlob: "20Gi", Reserve: "1Gi",
		Upstreams: []Upstream{
			{Host: "docker.io"}, {Host: "ghcr.io"}, {Host: "quay.io"}, {Host: "registry.k8s.io"},
			{Host: "gcr.io"}, {Host: "mcr.microsoft.com"}, {Host: "public.ecr.aws"},
		},
		TagTTL: "10m", CollectEvery: "12h", Grace: "24h", Untagged: "0s",
	},
	Manifests: manifests,
	Run:       run,
	Proofs:    proofs,
}

// Config is what the user may set under "registry" in the Platform.
type Config struct {
	// Quota is how much one namespace may hold, for example "20Gi"; "0" for no
	// limit. Content that its repositories share counts once. Copies of other
	// registries have no limit unless Quotas gives them one.
	Quota string `json:"quota"`

	// Quotas gives single namespaces, or other registries by their host,
	// another limit than Quota.
	Quotas map[string]string `json:"quotas,omitempty"`

	// MaxBlob is the size of the largest layer that is accepted.
	MaxBlob string `json:"maxBlob"`

	// Reserve is how much of the disk pushes leave free.
	Reserve string `json:"reserve"`

	// Upstreams are the other registries whose images may be pulled through
	// this one. A list replaces the default one; an empty list turns copying
	// off.
	Upstreams []Upstream `json:"upstreams"`

	// TagTTL is how long a copied tag is trusted before its origin is asked
	// whether it moved.
	TagTTL string `json:"tagTTL"`

	// CollectEvery is how often garbage is removed.
	CollectEvery string `json:"collectEvery"`

	// Grace is how long a layer that no image names is kept, and how long an
	// upload may take.
	Grace string `json:"grace"`

	// Untagged is how long an image is kept that has no tag any more and that
	// no other names. "0s" keeps it for ever: a pod may run it by its digest.
	Untagged string `json:"untagged"`
}

// Upstream is another registry.
type Upstream struct {
	// Host begins the names of its images, for example "docker.io".
	Host string `json:"host"`
	// Endpoint is where it answers, for example "https://mirror.example.org";
	// empty means where the host says.
	Endpoint string `json:"endpoint,omitempty"`
}
