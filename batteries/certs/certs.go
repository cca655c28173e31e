// Package certs gives everything in the cluster its certificates, and renews
// them while they are in use.
//
// It promises that a Certificate, and every TLS listener of a Gateway,
// ListenerSet or Ingress that asks for one, has a valid key pair in its Secret
// within seconds and for as long as it exists; that the platform has an
// authority of its own, the ClusterIssuer "emerald-ca"; and that whoever trusts
// the ClusterTrustBundle "emerald-ca" trusts every certificate of that
// authority, also while it is being replaced. It refuses objects that could
// never work, in words that say how they would.
//
// The work is done by cert-manager's own controllers. What their webhook would
// check is checked by admission policies inside the API server, which cannot be
// down.
//
// Invariant: a root that has signed anything stays in the bundle until it has
// expired.
package certs

import (
	"github.com/emerald-platform/emerald/battery"
)

// Battery is the platform's certificates, by cert-manager.
var Battery = battery.Battery{
	Name:      "certs",
	Doc:       "Certificates for every host and service, from the platform's own authority or any ACME one, renewed in place.",
	Where:     battery.Controllers,
	Config:    Config{AutoApprove: true, GenerateAuthority: true, AmbientCredentials: true},
	Manifests: manifests,
	Run:       run,
	Proofs:    proofs,
}

// Config is what the user may set under "certs" in the Platform.
type Config struct {
	// AutoApprove approves every CertificateRequest to an issuer of this
	// battery. Turn it off where something else approves them, such as
	// cert-manager's approver-policy; until that does, nothing is issued.
	AutoApprove bool `json:"autoApprove"`

	// GenerateAuthority makes the platform its own root, and renews it. Turn it
	// off to sign with a key pair from elsewhere: put it, as a TLS Secret with
	// that name, in place of [AuthorityName] in the battery's namespace.
	GenerateAuthority bool `json:"generateAuthority"`

	// DNS01Resolvers are asked whether the record that proves the ownership of
	// a domain to an ACME server can be seen, each "IP:port", or
	// "https://…/dns-query" for DNS over HTTPS. Empty means the cluster's own
	// resolver and then the domain's name servers.
	DNS01Resolvers []string `json:"dns01Resolvers,omitempty"`

	// AmbientCredentials lets a ClusterIssuer use credentials that the machine
	// itself has, such as a cloud instance's role, to change DNS records.
	AmbientCredentials bool `json:"ambientCredentials"`

	// DeleteSecrets deletes the Secret of a certificate together with its
	// Certificate. Otherwise the Secret stays, so that deleting a Certificate
	// by mistake breaks nothing.
	DeleteSecrets bool `json:"deleteSecrets"`
}

const (
	// AuthorityName is the name of the platform's authority: its ClusterIssuer,
	// its ClusterTrustBundle, and the Certificate and Secret in the battery's
	// namespace that hold its key pair.
	AuthorityName = "emerald-ca"
)
