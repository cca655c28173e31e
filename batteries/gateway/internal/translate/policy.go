package translate

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
)

// policy is a BackendTLSPolicy.
type policy struct {
	object             *gatewayv1.BackendTLSPolicy
	accepted, resolved verdict
	// tls is nil while the policy is not valid.
	tls    *model.BackendTLS
	digest string
}

// readPolicies understands the BackendTLSPolicies and settles which one counts
// where several have one target: the oldest (GEP-713).
func (t *translation) readPolicies() {
	type target struct {
		service types.NamespacedName
		section string
	}
	winners := map[target]*policy{}
	for _, o := range slices.SortedFunc(slices.Values(t.objects.Policies), byAge) {
		p := &policy{object: o}
		t.resolvePolicy(p)
		for _, ref := range o.Spec.TargetRefs {
			if ref.Group != coreGroup || ref.Kind != "Service" {
				continue
			}
			service := types.NamespacedName{Namespace: o.Namespace, Name: string(ref.Name)}
			key := target{service, string(deref(ref.SectionName, ""))}
			if !slices.Contains(t.policies[service], p) {
				t.policies[service] = append(t.policies[service], p)
			}
			if winner := winners[key]; winner != nil && winner != p {
				if p.accepted.ok() {
					p.accepted = no(gatewayv1.PolicyReasonConflicted, "BackendTLSPolicy %s, which is older, has the same target %s", winner.object.Name, service.Name)
				}
				continue
			}
			winners[key] = p
		}
	}
}

// policyFor returns the policy that counts for a Service's port, or nil. One
// for the port itself goes before one for all ports.
func (t *translation) policyFor(service types.NamespacedName, port string) *policy {
	for _, section := range []string{port, ""} {
		for _, p := range t.policies[service] {
			for _, ref := range p.object.Spec.TargetRefs {
				if ref.Group == coreGroup && ref.Kind == "Service" && string(ref.Name) == service.Name && string(deref(ref.SectionName, "")) == section {
					return p // they are ordered by age
				}
			}
		}
		if port == "" {
			break
		}
	}
	return nil
}

// resolvePolicy finds the certificates a policy refers to.
func (t *translation) resolvePolicy(p *policy) {
	v := &p.object.Spec.Validation
	out := &model.BackendTLS{ServerName: string(v.Hostname)}
	digest := sha256.New()
	fmt.Fprintln(digest, out.ServerName)
	for _, san := range v.SubjectAltNames {
		name := string(san.Hostname)
		if san.Type == gatewayv1.URISubjectAltNameType {
			name = string(san.URI)
		}
		out.SANs = append(out.SANs, name)
		fmt.Fprintln(digest, name)
	}
	switch {
	case len(v.CACertificateRefs) == 0 && deref(v.WellKnownCACertificates, "") == gatewayv1.WellKnownCACertificatesSystem:
		fmt.Fprintln(digest, "system")
	case len(v.CACertificateRefs) == 0:
		p.accepted = no(gatewayv1.PolicyReasonInvalid, "validation needs caCertificateRefs, or wellKnownCACertificates System")
		return
	case len(v.CACertificateRefs) > 1:
		p.accepted = no(gatewayv1.PolicyReasonInvalid, "one caCertificateRef is supported, whose object may hold several certificates")
		return
	default:
		ref := v.CACertificateRefs[0]
		m, bad := t.authorities(p.object.Namespace, ref)
		if !bad.ok() {
			p.resolved = bad
			p.accepted = no(gatewayv1.BackendTLSPolicyReasonNoValidCACertificate, "%s", bad.message)
			return
		}
		out.Roots = m.Roots
		fmt.Fprintln(digest, m.Digest)
	}
	p.tls, p.digest = out, hex.EncodeToString(digest.Sum(nil)[:12])
}

// authorities finds certificates of authorities. Beside ConfigMaps it takes
// Secrets with a key ca.crt, as cert-manager makes them, and
// ClusterTrustBundles.
func (t *translation) authorities(namespace string, ref gatewayv1.LocalObjectReference) (Material, verdict) {
	r := Reference{Kind: string(ref.Kind), Namespace: namespace, Name: string(ref.Name), Use: Authorities}
	switch {
	case ref.Group == coreGroup && (ref.Kind == "ConfigMap" || ref.Kind == "Secret"):
	case ref.Group == "certificates.k8s.io" && ref.Kind == "ClusterTrustBundle":
		r.Namespace = ""
	default:
		return Material{}, no(gatewayv1.BackendTLSPolicyReasonInvalidKind, "caCertificateRefs: %s/%s is not supported: use a ConfigMap with the key ca.crt", ref.Group, ref.Kind)
	}
	m, known := t.find(r)
	switch {
	case !known:
		return m, no(gatewayv1.BackendTLSPolicyReasonInvalidCACertificateRef, "%s %s is being read", ref.Kind, ref.Name)
	case m.Problem != "":
		return m, no(gatewayv1.BackendTLSPolicyReasonInvalidCACertificateRef, "%s %s %s", ref.Kind, ref.Name, m.Problem)
	}
	return m, verdict{}
}

// policyStatus returns the policy's status for each gateway that uses its targets,
// at most 16 (PolicyStatus).
func (t *translation) policyStatus(p *policy) []gatewayv1.PolicyAncestorStatus {
	ancestors := map[types.NamespacedName]bool{}
	for _, ref := range p.object.Spec.TargetRefs {
		for g := range t.uses[types.NamespacedName{Namespace: p.object.Namespace, Name: string(ref.Name)}] {
			ancestors[g] = true
		}
	}
	names := make([]types.NamespacedName, 0, len(ancestors))
	for g := range ancestors {
		names = append(names, g)
	}
	slices.SortFunc(names, func(a, b types.NamespacedName) int { return strings.Compare(a.String(), b.String()) })
	var out []gatewayv1.PolicyAncestorStatus
	for _, g := range names[:min(len(names), 16)] {
		group, kind, namespace := gatewayv1.Group(gatewayv1.GroupName), gatewayv1.Kind("Gateway"), gatewayv1.Namespace(g.Namespace)
		out = append(out, gatewayv1.PolicyAncestorStatus{
			AncestorRef:    gatewayv1.ParentReference{Group: &group, Kind: &kind, Namespace: &namespace, Name: gatewayv1.ObjectName(g.Name)},
			ControllerName: t.Controller,
			Conditions: []metav1.Condition{
				condition(gatewayv1.PolicyConditionAccepted, gatewayv1.PolicyReasonAccepted, "", p.accepted, p.object.Generation),
				condition(gatewayv1.BackendTLSPolicyConditionResolvedRefs, gatewayv1.BackendTLSPolicyReasonResolvedRefs, "", p.resolved, p.object.Generation),
			},
		})
	}
	return out
}
