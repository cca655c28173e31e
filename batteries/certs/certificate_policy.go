package certs

import "slices"

// certificateRuling refuses Certificates that could never be issued.
func certificateRuling() ruling {
	return ruling{
		name: "emerald-certs-certificates", group: group, resources: []string{"certificates"}, operations: either,
		when: []condition{specChanges},
		variables: []variable{
			{"spec", "object.spec"},
			// 90 days, cert-manager's own default, where none is given or readable.
			{"lifetime", "has(object.spec.duration) && (" + isDuration("object.spec.duration") + ") ? duration(object.spec.duration) : duration('2160h')"},
			{"algorithm", "has(object.spec.privateKey) && has(object.spec.privateKey.algorithm) ? object.spec.privateKey.algorithm : 'RSA'"},
			{"size", "has(object.spec.privateKey) && has(object.spec.privateKey.size) ? object.spec.privateKey.size : 0"},
			{"literal", "has(object.spec.literalSubject) ? object.spec.literalSubject : ''"},
		},
		checks: slices.Concat(
			issuerRefChecks, secretChecks, nameChecks, keyChecks, lifetimeChecks, extraChecks,
			keystoreChecks("jks"), keystoreChecks("pkcs12"),
		),
	}
}

var secretChecks = []check{
	{
		"!format.dns1123Subdomain().validate(variables.spec.secretName).hasValue()",
		"spec.secretName is not the name of a Secret: use lower case letters, digits, '-' and '.'",
	},
	{
		"!has(variables.spec.secretTemplate) || !has(variables.spec.secretTemplate.annotations) || " +
			"variables.spec.secretTemplate.annotations.all(k, !k.startsWith('cert-manager.io/') || k == 'cert-manager.io/allow-direct-injection')",
		"spec.secretTemplate.annotations: those under cert-manager.io/ are cert-manager's own: remove them",
	},
}

// nameChecks are about whom the certificate is for.
var nameChecks = []check{
	{
		oneIsSet("variables.spec", "dnsNames", "uris", "emailAddresses", "ipAddresses", "otherNames", "commonName") +
			" || variables.literal.matches('(^|[,+])\\\\s*CN\\\\s*=\\\\s*[^,+]')",
		"spec names nobody the certificate is for: set spec.dnsNames, or ipAddresses, uris, emailAddresses, otherNames or commonName",
	},
	{
		"!has(variables.spec.commonName) || size(variables.spec.commonName) <= 64",
		"spec.commonName is longer than the 64 characters that X.509 allows: leave it out and use spec.dnsNames",
	},
	{
		"!has(variables.spec.dnsNames) || variables.spec.dnsNames.all(n, n.matches('^[^\\\\s/:@]+$'))",
		"spec.dnsNames: one is not a host name: write it without scheme, port or path, for example shop.example.com",
	},
	{
		"!has(variables.spec.ipAddresses) || variables.spec.ipAddresses.all(a, isIP(a))",
		"spec.ipAddresses: one is not an IP address: host names go into spec.dnsNames",
	},
	{
		"!has(variables.spec.emailAddresses) || variables.spec.emailAddresses.all(a, a.matches('^[^\\\\s<>@]+@[^\\\\s<>@]+$'))",
		"spec.emailAddresses: one is not a plain address such as ann@example.com",
	},
	{
		"!has(variables.spec.otherNames) || variables.spec.otherNames.all(n, " +
			"has(n.oid) && n.oid.matches('^[0-9]+([.][0-9]+)+$') && has(n.utf8Value) && n.utf8Value != '')",
		"spec.otherNames: each needs an oid such as 1.3.6.1.4.1.311.20.2.3 and a utf8Value",
	},
	{
		"variables.literal == '' || !has(variables.spec.commonName) || variables.spec.commonName == ''",
		"spec.literalSubject and spec.commonName exclude each other: write CN=… into the literalSubject",
	},
	{
		"variables.literal == '' || !has(variables.spec.subject)",
		"spec.literalSubject and spec.subject exclude each other: remove one",
	},
}

// keyChecks are about the private key and what is signed with it.
var keyChecks = []check{
	{
		"variables.algorithm != 'RSA' || variables.size == 0 || (variables.size >= 2048 && variables.size <= 8192)",
		"spec.privateKey.size: an RSA key has 2048 to 8192 bits",
	},
	{
		"variables.algorithm != 'ECDSA' || variables.size in [0, 256, 384, 521]",
		"spec.privateKey.size: an ECDSA key has 256, 384 or 521 bits",
	},
	{
		"!has(variables.spec.signatureAlgorithm) || variables.spec.signatureAlgorithm == '' || " +
			"(variables.algorithm == 'RSA' && variables.spec.signatureAlgorithm.endsWith('WithRSA')) || " +
			"(variables.algorithm == 'ECDSA' && variables.spec.signatureAlgorithm.startsWith('ECDSAWith')) || " +
			"(variables.algorithm == 'Ed25519' && variables.spec.signatureAlgorithm == 'PureEd25519')",
		"spec.signatureAlgorithm cannot be used with the key's algorithm: remove it, the fitting one is chosen",
	},
}

// lifetimeChecks are about when the certificate ends and is renewed. The first
// ones keep out what the controllers cannot even read.
var lifetimeChecks = []check{
	{isDuration("variables.spec.duration"), "spec.duration" + durationHint},
	{isDuration("variables.spec.renewBefore"), "spec.renewBefore" + durationHint},
	{"variables.lifetime >= duration('1h')", "spec.duration is shorter than 1h, the least there is: make it longer"},
	{
		"!has(variables.spec.renewBefore) || !has(variables.spec.renewBeforePercentage)",
		"spec.renewBefore and spec.renewBeforePercentage exclude each other: remove one",
	},
	{
		"!has(variables.spec.renewBefore) || !(" + isDuration("variables.spec.renewBefore") + ") || " +
			"(duration(variables.spec.renewBefore) >= duration('5m') && duration(variables.spec.renewBefore) < variables.lifetime)",
		"spec.renewBefore must be at least 5m and less than spec.duration (2160h where that is not set)",
	},
	{
		"!has(variables.spec.renewBeforePercentage) || (variables.spec.renewBeforePercentage > 0 && variables.spec.renewBeforePercentage < 100 && " +
			"variables.lifetime.getSeconds() * (100 - variables.spec.renewBeforePercentage) / 100 >= 300)",
		"spec.renewBeforePercentage must be between 1 and 99 and leave at least 5m before the end",
	},
	{
		"!has(variables.spec.revisionHistoryLimit) || variables.spec.revisionHistoryLimit >= 1",
		"spec.revisionHistoryLimit must be at least 1",
	},
	{
		"!has(variables.spec.renewal) || !has(variables.spec.renewal.windows) || variables.spec.renewal.windows.all(w, " +
			"has(w.windowDuration) && (" + isDuration("w.windowDuration") + ") && has(w.cron) && w.cron.matches('^\\\\s*\\\\S+(\\\\s+\\\\S+){4}\\\\s*$'))",
		"spec.renewal.windows: each needs a windowDuration such as 4h and a cron of five fields such as \"0 2 * * 6\"",
	},
	{
		"!has(variables.spec.renewal) || !has(variables.spec.renewal.policy) || variables.spec.renewal.policy != 'Disabled' || " +
			"!has(variables.spec.renewal.windows) || size(variables.spec.renewal.windows) == 0",
		"spec.renewal.windows mean nothing while spec.renewal.policy is Disabled: remove one",
	},
}

var extraChecks = []check{
	{
		"!has(variables.spec.nameConstraints) || (has(variables.spec.isCA) && variables.spec.isCA)",
		"spec.nameConstraints bind authorities only: set spec.isCA too, or remove them",
	},
	{
		"!has(variables.spec.nameConstraints) || has(variables.spec.nameConstraints.permitted) || has(variables.spec.nameConstraints.excluded)",
		"spec.nameConstraints says nothing: set permitted or excluded",
	},
	{
		"!has(variables.spec.additionalOutputFormats) || variables.spec.additionalOutputFormats.all(f, " +
			"variables.spec.additionalOutputFormats.filter(g, g.type == f.type).size() == 1)",
		"spec.additionalOutputFormats names a type twice: remove one",
	},
}

// keystoreChecks are about the password of a Java or PKCS#12 key store.
func keystoreChecks(kind string) []check {
	field := "variables.spec.keystores." + kind
	absent := "!has(variables.spec.keystores) || !has(" + field + ") || "
	reference := "(has(" + field + ".passwordSecretRef) && has(" + field + ".passwordSecretRef.name) && " + field + ".passwordSecretRef.name != '')"
	return []check{
		{
			absent + "has(" + field + ".password) != " + reference,
			"spec.keystores." + kind + " needs exactly one of password and passwordSecretRef",
		},
		{
			absent + "!has(" + field + ".password) || " + field + ".password != ''",
			"spec.keystores." + kind + ".password is empty: give one, or name a Secret with passwordSecretRef",
		},
	}
}
