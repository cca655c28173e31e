package certs

import "slices"

// requestRuling refuses CertificateRequests that are malformed or pretend to
// come from somebody else. Who made a request is written into it by a mutation;
// approvers decide by it.
func requestRuling() ruling {
	return ruling{
		name: "emerald-certs-requests", group: group, resources: []string{"certificaterequests"}, operations: creates,
		checks: slices.Concat(issuerRefChecks, []check{
			{"size(object.spec.request) > 0", "spec.request is empty: put a PEM certificate signing request there"},
			{isDuration("object.spec.duration"), "spec.duration" + durationHint},
			{
				"(request.userInfo.username == '" + account + "' && !has(object.spec.username)) || (" +
					"(has(object.spec.username) ? object.spec.username : '') == request.userInfo.username && " +
					"(has(object.spec.uid) ? object.spec.uid : '') == (has(request.userInfo.uid) ? request.userInfo.uid : '') && " +
					"(has(object.spec.groups) ? object.spec.groups : []) == (has(request.userInfo.groups) ? request.userInfo.groups : []) && " +
					"(has(object.spec.extra) ? object.spec.extra : {}) == (has(request.userInfo.extra) ? request.userInfo.extra : {}))",
				"spec.username, spec.uid, spec.groups and spec.extra say who asks and are filled in by the server: remove them",
			},
		}),
	}
}

// requestChangeRuling keeps a request what it was when it was made: whoever
// approved it approved that.
func requestChangeRuling() ruling {
	// Both ways, so that none is added, changed or removed.
	same := func(a, b string) string {
		return a + ".all(k, !(k.startsWith('cert-manager.io') || k.startsWith('acme.cert-manager.io')) || (k in " + b + " && " + b + "[k] == " + a + "[k]))"
	}
	return ruling{
		name: "emerald-certs-request-changes", group: group, resources: []string{"certificaterequests", "certificaterequests/status"}, operations: changes,
		variables: []variable{
			{"before", "has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {}"},
			{"after", "has(object.metadata.annotations) ? object.metadata.annotations : {}"},
		},
		checks: []check{
			{"object.spec == oldObject.spec", "spec of a CertificateRequest cannot be changed: delete it and make another"},
			{
				same("variables.before", "variables.after") + " && " + same("variables.after", "variables.before"),
				"metadata.annotations under cert-manager.io cannot be changed on a CertificateRequest: delete it and make another",
			},
		},
	}
}

// approvalRuling lets only those approve or deny a request who may approve for
// its issuer (verb "approve" on signers.cert-manager.io), once and for all.
func approvalRuling() ruling {
	conditions := func(object, kind string) string {
		return "has(" + object + ".status) && has(" + object + ".status.conditions) ? " +
			object + ".status.conditions.filter(c, c.type == '" + kind + "') : []"
	}
	may := func(name string) string {
		return "authorizer.group('cert-manager.io').resource('signers').name(variables.signers + " + name + ").check('approve').allowed()"
	}
	return ruling{
		name: "emerald-certs-approvals", group: group, resources: []string{"certificaterequests/status"}, operations: changes,
		variables: []variable{
			{"approved", conditions("object", "Approved")},
			{"denied", conditions("object", "Denied")},
			{"wasApproved", conditions("oldObject", "Approved")},
			{"wasDenied", conditions("oldObject", "Denied")},
			{"kind", "has(object.spec.issuerRef.kind) && object.spec.issuerRef.kind != '' ? object.spec.issuerRef.kind : 'Issuer'"},
			{"group", "has(object.spec.issuerRef.group) && object.spec.issuerRef.group != '' ? object.spec.issuerRef.group : 'cert-manager.io'"},
			// Resources are named after their kind; nothing here can look it up.
			{"signers", "variables.kind.lowerAscii() + 's.' + variables.group + '/'"},
		},
		checks: []check{
			{
				"size(variables.approved) + size(variables.denied) <= 1",
				"status.conditions: a request is approved or denied, once: remove the other condition",
			},
			{
				"variables.approved.all(c, c.status == 'True') && variables.denied.all(c, c.status == 'True')",
				"status.conditions: Approved and Denied can only be True",
			},
			{
				"(size(variables.wasApproved) == 0 || variables.approved == variables.wasApproved) && " +
					"(size(variables.wasDenied) == 0 || variables.denied == variables.wasDenied)",
				"status.conditions: a request once approved or denied stays so: make another request",
			},
			{
				"(size(variables.approved) == size(variables.wasApproved) && size(variables.denied) == size(variables.wasDenied)) || " +
					may("'*'") + " || (variables.kind != 'ClusterIssuer' && " + may("object.metadata.namespace + '.' + object.spec.issuerRef.name") + ") || " +
					"(!(variables.group == 'cert-manager.io' && variables.kind == 'Issuer') && " + may("object.spec.issuerRef.name") + ")",
				"you may not approve or deny requests to this issuer: ask for the right \"approve\" on signers.cert-manager.io",
			},
		},
	}
}
