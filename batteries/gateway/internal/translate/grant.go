package translate

import (
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// coreGroup is how references name Kubernetes' own group.
const coreGroup = gatewayv1.Group("")

// grants knows which references across namespaces are allowed.
type grants map[grantKey][]string // to the allowed names, "" for all

// grantKey is who may refer to what in which namespace.
type grantKey struct {
	fromKind      gatewayv1.Kind
	fromNamespace string
	toKind        gatewayv1.Kind
	toNamespace   string
}

// indexGrants indexes the grants for references from the kinds of the Gateway
// API to those of the core group: no others are made.
func indexGrants(list []*gatewayv1.ReferenceGrant) grants {
	g := grants{}
	for _, grant := range list {
		for _, from := range grant.Spec.From {
			if from.Group != gatewayv1.GroupName {
				continue
			}
			for _, to := range grant.Spec.To {
				if to.Group != coreGroup {
					continue
				}
				key := grantKey{from.Kind, string(from.Namespace), to.Kind, grant.Namespace}
				g[key] = append(g[key], string(deref(to.Name, "")))
			}
		}
	}
	return g
}

// allow tells whether a reference is allowed. Those within a namespace are.
func (g grants) allow(fromKind gatewayv1.Kind, fromNamespace string, toKind gatewayv1.Kind, toNamespace, toName string) bool {
	if fromNamespace == toNamespace {
		return true
	}
	for _, name := range g[grantKey{fromKind, fromNamespace, toKind, toNamespace}] {
		if name == "" || name == toName {
			return true
		}
	}
	return false
}
