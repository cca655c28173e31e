package certs

// orderRuling keeps an ACME order what it was when it was made.
func orderRuling() ruling {
	return ruling{
		name: "emerald-certs-orders", group: acmeGroup, resources: []string{"orders"}, operations: either,
		checks: []check{
			{isDuration("object.spec.duration"), "spec.duration" + durationHint},
			{
				"request.operation == 'CREATE' || object.spec.request == oldObject.spec.request",
				"spec.request of an Order cannot be changed: delete it, another is made",
			},
		},
	}
}

// orderStatusRuling keeps what the ACME server has said about an order.
func orderStatusRuling() ruling {
	var checks []check
	for _, field := range []string{"url", "finalizeURL", "certificate"} {
		was, is := "oldObject.status."+field, "object.status."+field
		checks = append(checks, check{
			"!has(oldObject.status) || !has(" + was + ") || size(" + was + ") == 0 || (has(object.status) && has(" + is + ") && " + is + " == " + was + ")",
			"status." + field + " of an Order cannot be changed once it is set",
		})
	}
	const was, is = "oldObject.status.authorizations", "object.status.authorizations"
	const had = "!has(oldObject.status) || !has(" + was + ") || size(" + was + ") == 0 || "
	return ruling{
		name: "emerald-certs-order-status", group: acmeGroup, resources: []string{"orders/status"}, operations: changes,
		checks: append(checks, check{
			// What is known of an authorization stays; what was not known may come.
			had + "(has(object.status) && has(" + is + ") && size(" + is + ") == size(" + was + ") && " +
				was + ".all(a, " + is + ".exists(b, a.url == b.url && " +
				"(!has(a.identifier) || a.identifier == '' || (has(b.identifier) && a.identifier == b.identifier)) && " +
				"(!has(a.wildcard) || (has(b.wildcard) && a.wildcard == b.wildcard)) && " +
				"(!has(a.initialState) || a.initialState == '' || (has(b.initialState) && a.initialState == b.initialState)) && " +
				"(!has(a.challenges) || size(a.challenges) == 0 || (has(b.challenges) && a.challenges == b.challenges)))))",
			"status.authorizations of an Order cannot be changed once they are set",
		}),
	}
}

// challengeRuling keeps an ACME challenge what it was when it was made: changing
// its solver could send an issuer's credentials elsewhere.
func challengeRuling() ruling {
	return ruling{
		name: "emerald-certs-challenges", group: acmeGroup, resources: []string{"challenges"}, operations: changes,
		checks: []check{{"object.spec == oldObject.spec", "spec of a Challenge cannot be changed: delete it, another is made"}},
	}
}
