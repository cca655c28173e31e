package certs

import "fmt"

// issuerRuling refuses Issuers and ClusterIssuers that could never sign.
func issuerRuling() ruling {
	return ruling{
		name: "emerald-certs-issuers", group: group, resources: []string{"issuers", "clusterissuers"}, operations: either,
		when:      []condition{specChanges},
		variables: []variable{{"spec", "object.spec"}},
		checks: append(append([]check{
			{
				howMany("variables.spec", "acme", "ca", "selfSigned", "vault", "venafi") + " == 1",
				"spec needs exactly one kind of issuer: acme, ca, selfSigned or vault",
			},
			{"!has(variables.spec.venafi)", "spec.venafi: that kind of issuer is not built in: use acme, ca, selfSigned or vault, or an external issuer's own API"},
			{
				"!has(variables.spec.ca) || " + isSet("variables.spec.ca.secretName"),
				"spec.ca.secretName is empty: name the Secret with the authority's tls.crt and tls.key",
			},
		}, acmeChecks...), vaultChecks...),
	}
}

// acmeIssuer begins a check that holds where there is no ACME issuer.
const acmeIssuer = "!has(variables.spec.acme) || "

// eachSolver begins a check of every way to solve a challenge, called s.
const eachSolver = acmeIssuer + "!has(variables.spec.acme.solvers) || variables.spec.acme.solvers.all(s, "

var acmeChecks = []check{
	{
		acmeIssuer + "isURL(variables.spec.acme.server) && url(variables.spec.acme.server).getScheme() in ['https', 'http']",
		"spec.acme.server is not the address of an ACME directory, for example https://acme-v02.api.letsencrypt.org/directory",
	},
	{
		acmeIssuer + isSet("variables.spec.acme.privateKeySecretRef.name"),
		"spec.acme.privateKeySecretRef.name is empty: name the Secret that will hold the account's key",
	},
	{
		acmeIssuer + "!(" + isSet("variables.spec.acme.caBundle") + " && has(variables.spec.acme.skipTLSVerify) && variables.spec.acme.skipTLSVerify)",
		"spec.acme.caBundle and spec.acme.skipTLSVerify exclude each other: remove skipTLSVerify",
	},
	{
		acmeIssuer + "!has(variables.spec.acme.externalAccountBinding) || (" + isSet("variables.spec.acme.externalAccountBinding.keyID") + " && " +
			isSet("variables.spec.acme.externalAccountBinding.keySecretRef.name") + " && " +
			isSet("variables.spec.acme.externalAccountBinding.keySecretRef.key") + ")",
		"spec.acme.externalAccountBinding needs keyID and a keySecretRef with name and key",
	},
	{
		eachSolver + howMany("s", "http01", "dns01") + " == 1)",
		"spec.acme.solvers: each needs exactly one of http01 and dns01",
	},
	{
		eachSolver + isDuration("s.waitInsteadOfSelfCheck") + ")",
		"spec.acme.solvers: waitInsteadOfSelfCheck" + durationHint,
	},
	{
		eachSolver + "!has(s.http01) || " + howMany("s.http01", "ingress", "gatewayHTTPRoute") + " == 1)",
		"spec.acme.solvers: http01 needs exactly one of ingress and gatewayHTTPRoute",
	},
	{
		eachSolver + "!has(s.http01) || !has(s.http01.ingress) || " + howMany("s.http01.ingress", "class", "ingressClassName", "name") + " <= 1)",
		"spec.acme.solvers: http01.ingress takes one of ingressClassName, name and class",
	},
	{
		eachSolver + "!has(s.http01) || !has(s.http01.ingress) || !has(s.http01.ingress.ingressClassName) || " +
			"!format.dns1123Subdomain().validate(s.http01.ingress.ingressClassName).hasValue())",
		"spec.acme.solvers: http01.ingress.ingressClassName is not the name of an IngressClass",
	},
	{
		eachSolver + "!has(s.http01) || ((!has(s.http01.ingress) || !has(s.http01.ingress.serviceType) || s.http01.ingress.serviceType in ['', 'ClusterIP', 'NodePort']) && " +
			"(!has(s.http01.gatewayHTTPRoute) || !has(s.http01.gatewayHTTPRoute.serviceType) || s.http01.gatewayHTTPRoute.serviceType in ['', 'ClusterIP', 'NodePort'])))",
		"spec.acme.solvers: http01 serviceType is ClusterIP or NodePort",
	},
	{
		eachSolver + "!has(s.http01) || !has(s.http01.gatewayHTTPRoute) || !has(s.http01.gatewayHTTPRoute.parentRefs) || " +
			"s.http01.gatewayHTTPRoute.parentRefs.all(p, p.name != '' && has(p.kind)))",
		"spec.acme.solvers: each of http01.gatewayHTTPRoute.parentRefs needs name and kind, for example kind: Gateway",
	},
}

// vaultIssuer begins a check that holds where there is no Vault issuer.
const vaultIssuer = "!has(variables.spec.vault) || "

var vaultChecks = []check{
	{vaultIssuer + isSet("variables.spec.vault.server"), "spec.vault.server is empty: name Vault's address, for example https://vault.example.com"},
	{
		vaultIssuer + isSet("variables.spec.vault.path") + " && !('..' in variables.spec.vault.path.split('/'))",
		"spec.vault.path is empty or climbs with '..': name the path that signs, for example pki/sign/web",
	},
	{
		vaultIssuer + "!(" + isSet("variables.spec.vault.caBundle") + " && has(variables.spec.vault.caBundleSecretRef))",
		"spec.vault.caBundle and spec.vault.caBundleSecretRef exclude each other: remove one",
	},
	{
		vaultIssuer + "has(variables.spec.vault.clientCertSecretRef) == has(variables.spec.vault.clientKeySecretRef)",
		"spec.vault.clientCertSecretRef and spec.vault.clientKeySecretRef go together: set both or none",
	},
	{
		vaultIssuer + howMany("variables.spec.vault.auth", "tokenSecretRef", "appRole", "clientCertificate", "kubernetes", "aws") + " >= 1",
		"spec.vault.auth is empty: set one of kubernetes, appRole, tokenSecretRef, clientCertificate and aws",
	},
	{
		vaultIssuer + "!has(variables.spec.vault.auth.appRole) || (" + isSet("variables.spec.vault.auth.appRole.roleId") + " && " +
			isSet("variables.spec.vault.auth.appRole.secretRef.name") + ")",
		"spec.vault.auth.appRole needs roleId and secretRef.name",
	},
	{
		vaultIssuer + "!has(variables.spec.vault.auth.kubernetes) || (" + isSet("variables.spec.vault.auth.kubernetes.role") + " && " +
			"(has(variables.spec.vault.auth.kubernetes.serviceAccountRef) != (has(variables.spec.vault.auth.kubernetes.secretRef) && " +
			"has(variables.spec.vault.auth.kubernetes.secretRef.name) && variables.spec.vault.auth.kubernetes.secretRef.name != '')))",
		"spec.vault.auth.kubernetes needs role and exactly one of serviceAccountRef and secretRef",
	},
	noClimbing("appRole.path", "appRole", "path"),
	noClimbing("clientCertificate.mountPath", "clientCertificate", "mountPath"),
	noClimbing("kubernetes.mountPath", "kubernetes", "mountPath"),
	noClimbing("aws.mountPath", "aws", "mountPath"),
}

// noClimbing keeps a path below where Vault mounts the way to log in.
func noClimbing(field, method, path string) check {
	m := "variables.spec.vault.auth." + method
	return check{
		vaultIssuer + "!has(" + m + ") || !has(" + m + "." + path + ") || !('..' in " + m + "." + path + ".split('/'))",
		"spec.vault.auth." + field + " climbs with '..': name a plain path",
	}
}

// dns01Ruling refuses ways to change DNS records that lack what they need. It
// stands apart from issuerRuling so that neither gets too costly to evaluate.
func dns01Ruling() ruling {
	const each = "!has(object.spec.acme.solvers) || object.spec.acme.solvers.all(s, !has(s.dns01) || "
	given := func(provider string) string { return "!has(s.dns01." + provider + ") || " }
	// A reference that must name a Secret and one of its keys.
	key := func(ref string) string {
		return "(" + isSet("s.dns01."+ref+".name") + " && " + isSet("s.dns01."+ref+".key") + ")"
	}
	need := func(provider, needs string, musts ...string) check {
		must := ""
		for i, m := range musts {
			if i > 0 {
				must += " && "
			}
			must += m
		}
		return check{each + given(provider) + "(" + must + "))", fmt.Sprintf("spec.acme.solvers: dns01.%s needs %s", provider, needs)}
	}
	set := func(field string) string { return isSet("s.dns01." + field) }
	return ruling{
		name: "emerald-certs-dns01", group: group, resources: []string{"issuers", "clusterissuers"}, operations: either,
		when: []condition{specChanges, {"acme", "has(object.spec.acme)"}},
		checks: []check{
			{
				each + howMany("s.dns01", "akamai", "azureDNS", "cloudDNS", "cloudflare", "route53", "acmeDNS", "digitalocean", "rfc2136", "webhook") + " == 1)",
				"spec.acme.solvers: each dns01 needs exactly one provider, for example cloudflare, route53, rfc2136 or webhook",
			},
			need("cloudflare", "exactly one of apiTokenSecretRef and apiKeySecretRef, and an email with apiKeySecretRef",
				"has(s.dns01.cloudflare.apiTokenSecretRef) != has(s.dns01.cloudflare.apiKeySecretRef)",
				"(!has(s.dns01.cloudflare.apiKeySecretRef) || ("+set("cloudflare.email")+" && "+key("cloudflare.apiKeySecretRef")+"))",
				"(!has(s.dns01.cloudflare.apiTokenSecretRef) || "+key("cloudflare.apiTokenSecretRef")+")"),
			need("digitalocean", "a tokenSecretRef with name and key", key("digitalocean.tokenSecretRef")),
			need("route53", "at most one of accessKeyID and accessKeyIDSecretRef",
				"!("+set("route53.accessKeyID")+" && has(s.dns01.route53.accessKeyIDSecretRef))"),
			need("cloudDNS", "project", set("cloudDNS.project")),
			need("azureDNS", "subscriptionID and resourceGroupName, and clientID, tenantID and clientSecretSecretRef together or none of them",
				set("azureDNS.subscriptionID"), set("azureDNS.resourceGroupName"),
				set("azureDNS.clientID")+" == "+set("azureDNS.tenantID"),
				set("azureDNS.clientID")+" == has(s.dns01.azureDNS.clientSecretSecretRef)",
				"!(has(s.dns01.azureDNS.managedIdentity) && "+set("azureDNS.clientID")+")"),
			need("akamai", "serviceConsumerDomain, accessTokenSecretRef, clientSecretSecretRef and clientTokenSecretRef",
				set("akamai.serviceConsumerDomain"), key("akamai.accessTokenSecretRef"),
				key("akamai.clientSecretSecretRef"), key("akamai.clientTokenSecretRef")),
			need("acmeDNS", "host and an accountSecretRef with name and key", set("acmeDNS.host"), key("acmeDNS.accountSecretRef")),
			need("rfc2136", "nameserver, and tsigKeyName together with tsigSecretSecretRef",
				set("rfc2136.nameserver"),
				set("rfc2136.tsigKeyName")+" == (has(s.dns01.rfc2136.tsigSecretSecretRef) && "+key("rfc2136.tsigSecretSecretRef")+")"),
			need("rfc2136", "tsigAlgorithm to be HMACMD5, HMACSHA1, HMACSHA256 or HMACSHA512",
				"!"+set("rfc2136.tsigAlgorithm")+" || s.dns01.rfc2136.tsigAlgorithm.upperAscii() in ['HMACMD5', 'HMACSHA1', 'HMACSHA256', 'HMACSHA512']"),
			need("webhook", "solverName", set("webhook.solverName")),
		},
	}
}
