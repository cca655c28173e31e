package certs

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/discovery"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/openapi"
	"k8s.io/client-go/openapi/openapitest"
	"sigs.k8s.io/yaml"
)

// gate is the part of an API server that applies admission policies.
type gate struct {
	validating *validating.Plugin
	mutating   *mutating.Plugin
}

// newGate puts the battery's policies in force.
func newGate(t *testing.T, c Config) gate {
	t.Helper()
	objs := []runtime.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team"}}}
	for _, o := range append(validations(), requester(c)...) {
		o.SetUID("1")
		o.SetGeneration(1)
		switch p := o.(type) {
		case *admissionv1.ValidatingAdmissionPolicy:
			setDefaults(p.Spec.MatchConstraints)
		case *admissionv1.MutatingAdmissionPolicy:
			setDefaults(p.Spec.MatchConstraints)
		}
		objs = append(objs, o)
	}
	client := fake.NewClientset(objs...)
	factory := informers.NewSharedInformerFactory(client, 0)
	mapper := meta.NewDefaultRESTMapper(nil)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)

	descriptions := schemas(t)
	var g gate
	var err error
	if g.validating, err = validating.NewPlugin(nil); err != nil {
		t.Fatal(err)
	}
	if g.mutating, err = mutating.NewPlugin(nil); err != nil {
		t.Fatal(err)
	}
	g.mutating.SetEnabled(true)
	for _, p := range []admission.Interface{g.validating, g.mutating} {
		initializer.New(described{client, descriptions}, dynamicfake.NewSimpleDynamicClient(runtime.NewScheme()), factory, approvers,
			utilfeature.DefaultFeatureGate, compatibility.DefaultBuildEffectiveVersion(), ctx.Done(), mapper).Initialize(p)
		if err := p.(admission.InitializationValidator).ValidateInitialization(); err != nil {
			t.Fatal(err)
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	return g
}

// setDefaults does what the API server does with a policy it stores.
func setDefaults(m *admissionv1.MatchResources) {
	m.NamespaceSelector, m.ObjectSelector = &metav1.LabelSelector{}, &metav1.LabelSelector{}
	m.MatchPolicy = new(admissionv1.Equivalent)
}

// described is a client of an API that describes what the battery defines.
type described struct {
	kubernetes.Interface
	schemas openapi.Client
}

func (d described) Discovery() discovery.DiscoveryInterfaces {
	return discovered{d.Interface.Discovery(), d.schemas}
}

type discovered struct {
	discovery.DiscoveryInterfaces
	schemas openapi.Client
}

func (d discovered) OpenAPIV3() openapi.Client { return d.schemas }

// schemas returns the description of CertificateRequests.
func schemas(t *testing.T) openapi.Client {
	t.Helper()
	objs, err := definitions()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objs {
		crd := o.(*apiextensionsv1.CustomResourceDefinition)
		if crd.Spec.Names.Kind != "CertificateRequest" {
			continue
		}
		description, err := builder.BuildOpenAPIV3(crd, "v1", builder.Options{})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := description.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		return &openapitest.FakeClient{PathsMap: map[string]openapi.GroupVersion{"apis/" + group + "/v1": served{raw}}}
	}
	t.Fatal("no definition of CertificateRequest")
	return nil
}

type served struct{ schema []byte }

func (s served) Schema(string) ([]byte, error) { return s.schema, nil }
func (served) ServerRelativeURL() string       { return "/openapi/v3/apis/cert-manager.io/v1" }

// approvers lets "ann" approve requests to one issuer only.
var approvers authorizer.AuthorizerFunc = func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetUser().GetName() == "ann" && a.GetVerb() == "approve" && a.GetResource() == "signers" &&
		a.GetAPIGroup() == group && a.GetName() == "issuers.cert-manager.io/team.ca" {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// request is one write to the API.
type request struct {
	gvr         schema.GroupVersionResource
	subresource string
	kind        string
	user        string
	before      string // YAML, "" when the object is being created
	after       string // YAML
}

// send passes a request through the gate and returns the object as it would be
// stored.
func (g gate) send(t *testing.T, r request) (*unstructured.Unstructured, error) {
	t.Helper()
	gvk := r.gvr.GroupVersion().WithKind(r.kind)
	obj := parseYAML(t, gvk, r.after)
	op, opts := admission.Create, runtime.Object(&metav1.CreateOptions{})
	var old runtime.Object
	if r.before != "" {
		op, opts = admission.Update, &metav1.UpdateOptions{}
		old = parseYAML(t, gvk, r.before)
	}
	who := &user.DefaultInfo{Name: r.user, UID: "u-" + r.user, Groups: []string{"g1", "g2"}, Extra: map[string][]string{"from": {"test"}}}
	attrs := admission.NewAttributesRecord(obj, old, gvk, obj.GetNamespace(), obj.GetName(), r.gvr, r.subresource, op, opts, false, who)
	interfaces := admission.NewObjectInterfacesFromScheme(runtime.NewScheme())
	deadline, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if op == admission.Create {
		if err := g.mutating.Admit(deadline, attrs, interfaces); err != nil {
			return nil, err
		}
	}
	return obj, g.validating.Validate(deadline, attrs, interfaces)
}

func parseYAML(t *testing.T, gvk schema.GroupVersionKind, text string) *unstructured.Unstructured {
	t.Helper()
	raw, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	u := &unstructured.Unstructured{}
	if err := utiljson.Unmarshal(raw, &u.Object); err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	u.SetGroupVersionKind(gvk)
	if u.GetNamespace() == "" && gvk.Kind != "ClusterIssuer" {
		u.SetNamespace("team")
	}
	u.SetName("x")
	return u
}

// indented puts a YAML fragment below a field.
func indented(field, fragment string) string {
	return field + ":\n  " + strings.ReplaceAll(strings.TrimSpace(fragment), "\n", "\n  ") + "\n"
}

// verdict fails the test unless err is nil and want empty, or err says want.
func verdict(t *testing.T, reason string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: refused: %v", reason, err)
	case want != "" && err == nil:
		t.Errorf("%s: passed, want %q", reason, want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("%s: want %q, got: %v", reason, want, err)
	}
}

func TestCertificatePolicy(t *testing.T) {
	g := newGate(t, Battery.Config.(Config))
	const base = "secretName: web\nissuerRef: {name: emerald-ca, kind: ClusterIssuer}\n"
	const named = base + "dnsNames: [web.example.com]\n"
	for _, tc := range []struct{ reason, spec, want string }{
		{"the least there is", named, ""},
		{"everything there is", base + `
commonName: web
subject: {organizations: [x]}
dnsNames: [web.example.com, "*.example.com"]
ipAddresses: [192.0.2.1, "2001:db8::1"]
uris: ["spiffe://example.com/web"]
emailAddresses: [ann@example.com]
otherNames: [{oid: 1.3.6.1.4.1.311.20.2.3, utf8Value: ann@example.com}]
duration: 2160h0m0s
renewBefore: 360h
privateKey: {algorithm: ECDSA, size: 384, rotationPolicy: Always}
signatureAlgorithm: ECDSAWithSHA384
revisionHistoryLimit: 3
isCA: true
nameConstraints: {permitted: {dnsDomains: [example.com]}}
usages: [server auth]
secretTemplate: {annotations: {a: b, cert-manager.io/allow-direct-injection: "true"}}
keystores: {jks: {create: true, passwordSecretRef: {name: p, key: k}}, pkcs12: {create: true, password: secret}}
additionalOutputFormats: [{type: DER}, {type: CombinedPEM}]
renewal: {policy: RenewBefore, windows: [{cron: "0 2 * * 6", windowDuration: 4h}]}
`, ""},
		{"an issuer of another group", "secretName: web\ndnsNames: [a]\nissuerRef: {name: x, kind: AWSPCAIssuer, group: awspca.cert-manager.io}\n", ""},
		{"a common name in a literal subject", base + `literalSubject: "CN=web,O=x"`, ""},

		{"a name no Secret can have", strings.Replace(named, "secretName: web", "secretName: Web_1", 1), "spec.secretName is not the name of a Secret"},
		{"no issuer", "secretName: web\ndnsNames: [a]\nissuerRef: {name: \"\"}\n", "spec.issuerRef.name is empty"},
		{"the group of an external issuer is missing", "secretName: web\ndnsNames: [a]\nissuerRef: {name: x, kind: AWSPCAIssuer}\n", "set spec.issuerRef.group"},
		{"nobody", base, "spec names nobody the certificate is for"},
		{"nobody, in lists", base + "dnsNames: []\ncommonName: \"\"", "spec names nobody the certificate is for"},
		{"a subject without a name", base + `literalSubject: "O=x"`, "spec names nobody the certificate is for"},
		{"65 characters", base + "commonName: " + strings.Repeat("a", 65), "spec.commonName is longer"},
		{"an address instead of a host name", base + `dnsNames: ["https://web.example.com"]`, "spec.dnsNames: one is not a host name"},
		{"a port", base + `dnsNames: ["web.example.com:443"]`, "spec.dnsNames: one is not a host name"},
		{"not an IP address", base + "ipAddresses: [web]", "spec.ipAddresses"},
		{"a name beside the address", base + `emailAddresses: ["Ann <ann@example.com>"]`, "spec.emailAddresses"},
		{"no object identifier", base + "otherNames: [{oid: upn, utf8Value: x}]", "spec.otherNames"},
		{"two common names", base + "commonName: web\nliteralSubject: CN=web", "exclude each other"},
		{"two subjects", base + "subject: {organizations: [x]}\nliteralSubject: CN=web", "exclude each other"},

		{"a weak key", named + "privateKey: {size: 1024}", "an RSA key has 2048 to 8192 bits"},
		{"a key of no curve", named + "privateKey: {algorithm: ECDSA, size: 2048}", "an ECDSA key has"},
		{"a signature the key cannot make", named + "signatureAlgorithm: ECDSAWithSHA256", "spec.signatureAlgorithm"},

		{"days", named + "duration: 90d", "spec.duration is not a duration"},
		{"a plain number", named + `renewBefore: "3600"`, "spec.renewBefore is not a duration"},
		{"negative", named + "duration: -1h", "spec.duration is not a duration"},
		{"half an hour", named + "duration: 30m", "spec.duration is shorter than 1h"},
		{"renewed at once", named + "duration: 2h\nrenewBefore: 2h", "spec.renewBefore must be"},
		{"renewed too late", named + "renewBefore: 1m", "spec.renewBefore must be"},
		{"longer than the default", named + "renewBefore: 2161h", "spec.renewBefore must be"},
		{"two ways to renew", named + "renewBefore: 1h\nrenewBeforePercentage: 30", "exclude each other"},
		{"a third", named + "renewBeforePercentage: 33", ""},
		{"a hundred percent", named + "renewBeforePercentage: 100", "spec.renewBeforePercentage"},
		{"too late by percentage", named + "duration: 1h\nrenewBeforePercentage: 99", "spec.renewBeforePercentage"},
		{"no history", named + "revisionHistoryLimit: 0", "spec.revisionHistoryLimit"},
		{"a window without a length", named + `renewal: {policy: RenewBefore, windows: [{cron: "0 2 * * 6"}]}`, "spec.renewal.windows"},
		{"a window in days", named + `renewal: {policy: RenewBefore, windows: [{cron: "0 2 * * 6", windowDuration: 1d}]}`, "spec.renewal.windows"},
		{"a window every so often", named + `renewal: {policy: RenewBefore, windows: [{cron: "@daily", windowDuration: 1h}]}`, "spec.renewal.windows"},
		{"a window that is never used", named + `renewal: {policy: Disabled, windows: [{cron: "0 2 * * 6", windowDuration: 1h}]}`, "mean nothing"},

		{"constraints on a leaf", named + "nameConstraints: {permitted: {dnsDomains: [a]}}", "spec.nameConstraints bind authorities only"},
		{"empty constraints", named + "isCA: true\nnameConstraints: {critical: true}", "spec.nameConstraints says nothing"},
		{"a format twice", named + "additionalOutputFormats: [{type: DER}, {type: DER}]", "names a type twice"},
		{"cert-manager's annotations", named + `secretTemplate: {annotations: {cert-manager.io/certificate-name: other}}`, "spec.secretTemplate.annotations"},
		{"no password", named + `keystores: {jks: {create: true, passwordSecretRef: {name: ""}}}`, "spec.keystores.jks needs exactly one"},
		{"two passwords", named + `keystores: {pkcs12: {create: true, password: x, passwordSecretRef: {name: p}}}`, "spec.keystores.pkcs12 needs exactly one"},
		{"an empty password", named + `keystores: {pkcs12: {create: true, password: ""}}`, "spec.keystores.pkcs12.password is empty"},
	} {
		r := request{gvr: schema.GroupVersionResource{Group: group, Version: "v1", Resource: "certificates"}, kind: "Certificate", user: "ann", after: indented("spec", tc.spec)}
		_, err := g.send(t, r)
		verdict(t, tc.reason, err, tc.want)
		r.before = indented("spec", named)
		if tc.spec != named {
			_, err = g.send(t, r)
			verdict(t, tc.reason+", by a change", err, tc.want)
		}
		// What is there already may be labelled and deleted, however bad.
		r.before = r.after
		r.after = "metadata: {labels: {a: b}}\n" + r.after
		_, err = g.send(t, r)
		verdict(t, tc.reason+", left alone", err, "")
	}
}

func TestIssuerPolicy(t *testing.T) {
	g := newGate(t, Battery.Config.(Config))
	acme := func(more string) string {
		return indented("acme", "server: https://acme.example/directory\nprivateKeySecretRef: {name: key}\n"+more)
	}
	dns01 := func(provider string) string { return acme("solvers: [{dns01: " + provider + "}]") }
	vault := func(auth string) string {
		return indented("vault", "server: https://vault.example\npath: pki/sign/web\nauth: "+auth)
	}
	for _, tc := range []struct{ reason, spec, want string }{
		{"its own signature", "selfSigned: {}", ""},
		{"a key pair", "ca: {secretName: ca}", ""},
		{"ACME over HTTP", acme("solvers: [{http01: {gatewayHTTPRoute: {parentRefs: [{name: emerald, namespace: emerald-gateway, kind: Gateway}]}}}]"), ""},
		{"ACME by an Ingress", acme("solvers: [{http01: {ingress: {ingressClassName: emerald}}, waitInsteadOfSelfCheck: 30s}]"), ""},
		{"Vault", vault("{kubernetes: {role: r, serviceAccountRef: {name: sa}}}"), ""},
		{"Vault as a Go client writes it", vault(`{kubernetes: {role: r, secretRef: {name: ""}, serviceAccountRef: {name: sa}}}`), ""},
		{"Cloudflare", dns01("{cloudflare: {apiTokenSecretRef: {name: s, key: k}}}"), ""},
		{"Route 53 with the machine's role", dns01(`{route53: {region: eu, secretAccessKeySecretRef: {name: ""}}}`), ""},
		{"RFC 2136 without a key", dns01(`{rfc2136: {nameserver: "192.0.2.1:53", tsigSecretSecretRef: {name: ""}}}`), ""},
		{"RFC 2136 with a key", dns01(`{rfc2136: {nameserver: "192.0.2.1:53", tsigKeyName: k, tsigAlgorithm: HMACSHA512, tsigSecretSecretRef: {name: s, key: k}}}`), ""},
		{"Azure with its identity", dns01("{azureDNS: {subscriptionID: s, resourceGroupName: g}}"), ""},
		{"a webhook", dns01("{webhook: {groupName: g, solverName: s}}"), ""},

		{"nothing", "{}", "exactly one kind of issuer"},
		{"two kinds", "selfSigned: {}\nca: {secretName: ca}", "exactly one kind of issuer"},
		{"one that is not built in", "venafi: {zone: z}", "spec.venafi"},
		{"no secret", `ca: {secretName: ""}`, "spec.ca.secretName is empty"},
		{"no address", "acme: {server: acme.example, privateKeySecretRef: {name: k}}", "spec.acme.server"},
		{"another scheme", "acme: {server: \"ftp://acme.example\", privateKeySecretRef: {name: k}}", "spec.acme.server"},
		{"no key", `acme: {server: "https://acme.example/", privateKeySecretRef: {name: ""}}`, "spec.acme.privateKeySecretRef"},
		{"trust and distrust", acme("caBundle: QQ==\nskipTLSVerify: true"), "exclude each other"},
		{"half a binding", acme(`externalAccountBinding: {keyID: k, keySecretRef: {name: "", key: k}}`), "spec.acme.externalAccountBinding"},
		{"a solver that solves nothing", acme("solvers: [{selector: {}}]"), "exactly one of http01 and dns01"},
		{"two in one", acme("solvers: [{http01: {ingress: {}}, dns01: {webhook: {groupName: g, solverName: s}}}]"), "exactly one of http01 and dns01"},
		{"a wait in days", acme("solvers: [{http01: {ingress: {}}, waitInsteadOfSelfCheck: 1d}]"), "waitInsteadOfSelfCheck is not a duration"},
		{"no way in", acme("solvers: [{http01: {}}]"), "exactly one of ingress and gatewayHTTPRoute"},
		{"two classes", acme("solvers: [{http01: {ingress: {class: a, ingressClassName: b}}}]"), "takes one of"},
		{"a class that is no name", acme("solvers: [{http01: {ingress: {ingressClassName: a/b}}}]"), "is not the name of an IngressClass"},
		{"a load balancer each", acme("solvers: [{http01: {ingress: {serviceType: LoadBalancer}}}]"), "serviceType is ClusterIP or NodePort"},
		{"a parent without a kind", acme("solvers: [{http01: {gatewayHTTPRoute: {parentRefs: [{name: g}]}}}]"), "parentRefs needs name and kind"},
		{"no provider", dns01("{cnameStrategy: Follow}"), "exactly one provider"},
		{"two providers", dns01("{cloudDNS: {project: p}, webhook: {groupName: g, solverName: s}}"), "exactly one provider"},
		{"Cloudflare without credentials", dns01("{cloudflare: {email: a}}"), "dns01.cloudflare needs"},
		{"Cloudflare's key without an address", dns01("{cloudflare: {apiKeySecretRef: {name: s, key: k}}}"), "dns01.cloudflare needs"},
		{"a token nowhere", dns01(`{digitalocean: {tokenSecretRef: {name: "", key: k}}}`), "dns01.digitalocean needs"},
		{"two key ids", dns01(`{route53: {accessKeyID: a, accessKeyIDSecretRef: {name: s, key: k}, secretAccessKeySecretRef: {name: s}}}`), "dns01.route53 needs"},
		{"Azure, half", dns01("{azureDNS: {subscriptionID: s, resourceGroupName: g, clientID: c}}"), "dns01.azureDNS needs"},
		{"a key without a name", dns01(`{rfc2136: {nameserver: "192.0.2.1", tsigSecretSecretRef: {name: s, key: k}}}`), "dns01.rfc2136 needs nameserver"},
		{"an algorithm nobody has", dns01(`{rfc2136: {nameserver: "192.0.2.1", tsigAlgorithm: MD4}}`), "dns01.rfc2136 needs tsigAlgorithm"},
		{"Vault without a way in", vault("{}"), "spec.vault.auth is empty"},
		{"Vault with two tokens", vault("{kubernetes: {role: r, secretRef: {name: s}, serviceAccountRef: {name: sa}}}"), "spec.vault.auth.kubernetes needs"},
		{"climbing", vault("{kubernetes: {role: r, mountPath: /v1/auth/../sys, serviceAccountRef: {name: sa}}}"), "climbs"},
		{"climbing to sign", "vault: {server: s, path: pki/../sys, auth: {tokenSecretRef: {name: t}}}", "spec.vault.path"},
	} {
		for _, kind := range []string{"Issuer", "ClusterIssuer"} {
			spec := indented("spec", tc.spec)
			_, err := g.send(t, request{
				gvr:  schema.GroupVersionResource{Group: group, Version: "v1", Resource: strings.ToLower(kind) + "s"},
				kind: kind, user: "ann", after: spec,
			})
			verdict(t, tc.reason, err, tc.want)
		}
	}
}

var requests = schema.GroupVersionResource{Group: group, Version: "v1", Resource: "certificaterequests"}

func TestRequesterIsWrittenDown(t *testing.T) {
	const plain = "request: QQ==\nissuerRef: {name: ca}\n"
	const pretended = plain + "username: root\nuid: \"0\"\ngroups: [system:masters]\nextra: {k: [v]}\n"
	others := newGate(t, Config{AutoApprove: false})
	own := newGate(t, Config{AutoApprove: true})
	for _, tc := range []struct {
		reason string
		gate   gate
		user   string
		spec   string
		want   string // user name in the stored object
	}{
		{"nothing said", own, "bob", plain, "bob"},
		{"somebody else", own, "bob", pretended, "bob"},
		{"the controllers, approved here", own, account, plain, ""},
		{"the controllers, approved elsewhere", others, account, plain, account},
	} {
		got, err := tc.gate.send(t, request{gvr: requests, kind: "CertificateRequest", user: tc.user, after: indented("spec", tc.spec)})
		verdict(t, tc.reason, err, "")
		if err != nil {
			continue
		}
		username, _, _ := unstructured.NestedString(got.Object, "spec", "username")
		uid, _, _ := unstructured.NestedString(got.Object, "spec", "uid")
		groups, _, _ := unstructured.NestedStringSlice(got.Object, "spec", "groups")
		extra := fmt.Sprint(got.Object["spec"].(map[string]any)["extra"])
		if username != tc.want {
			t.Errorf("%s: stored as %v", tc.reason, got.Object["spec"])
		}
		if tc.want != "" && (uid != "u-"+tc.want || strings.Join(groups, " ") != "g1 g2" || extra != "map[from:[test]]") {
			t.Errorf("%s: stored as %v", tc.reason, got.Object["spec"])
		}
	}
	_, err := own.send(t, request{gvr: requests, kind: "CertificateRequest", user: account, after: indented("spec", pretended)})
	verdict(t, "the controllers, pretending", err, "say who asks")
	_, err = own.send(t, request{gvr: requests, kind: "CertificateRequest", user: "bob", after: "spec: {request: \"\", issuerRef: {name: ca}}"})
	verdict(t, "no request", err, "spec.request is empty")
}

func TestRequestPolicy(t *testing.T) {
	g := newGate(t, Battery.Config.(Config))
	const spec = "spec: {request: QQ==, issuerRef: {name: ca, kind: Issuer}, username: bob}\n"
	status := func(conditions ...string) string {
		out := ""
		for _, c := range conditions {
			kind, value, _ := strings.Cut(c, "=")
			out += ", {type: " + kind + ", status: \"" + value + "\"}"
		}
		return spec + "status: {conditions: [" + strings.TrimPrefix(out, ", ") + "]}\n"
	}
	for _, tc := range []struct{ reason, subresource, user, before, after, want string }{
		{"a label", "", "bob", spec, spec + "metadata: {labels: {a: b}}", ""},
		{"the request", "", "bob", spec, strings.Replace(spec, "QQ==", "Qg==", 1), "spec of a CertificateRequest cannot be changed"},
		{"the issuer, with the status", "status", "bob", spec, strings.Replace(spec, "name: ca", "name: other", 1), "spec of a CertificateRequest cannot be changed"},
		{"a foreign annotation", "", "bob", spec, spec + "metadata: {annotations: {a: b}}", ""},
		{"cert-manager's annotation added", "", "bob", spec, spec + "metadata: {annotations: {cert-manager.io/a: b}}", "cannot be changed"},
		{"cert-manager's annotation removed", "", "bob", spec + "metadata: {annotations: {acme.cert-manager.io/a: b}}", spec, "cannot be changed"},

		{"approved by who may", "status", "ann", status(), status("Approved=True"), ""},
		{"approved by who may not", "status", "bob", status(), status("Approved=True"), "you may not approve"},
		{"denied by who may not", "status", "bob", spec, status("Denied=True"), "you may not approve"},
		{"somebody's right for another issuer", "status", "ann", strings.Replace(spec, "name: ca", "name: b", 1), strings.Replace(status("Approved=True"), "name: ca", "name: b", 1), "you may not approve"},
		{"ready, by the issuer", "status", "bob", status("Approved=True"), status("Approved=True", "Ready=True"), ""},
		{"both", "status", "ann", status(), status("Approved=True", "Denied=True"), "approved or denied, once"},
		{"approved with False", "status", "ann", status(), status("Approved=False"), "can only be True"},
		{"taken back", "status", "ann", status("Approved=True"), status(), "stays so"},
		{"turned round", "status", "ann", status("Approved=True"), status("Denied=True"), "stays so"},
	} {
		_, err := g.send(t, request{gvr: requests, subresource: tc.subresource, kind: "CertificateRequest", user: tc.user, before: tc.before, after: tc.after})
		verdict(t, tc.reason, err, tc.want)
	}
}

func TestACMEPolicies(t *testing.T) {
	g := newGate(t, Battery.Config.(Config))
	orders := schema.GroupVersionResource{Group: acmeGroup, Version: "v1", Resource: "orders"}
	challenges := schema.GroupVersionResource{Group: acmeGroup, Version: "v1", Resource: "challenges"}
	const known = "status: {url: u, authorizations: [{url: a, identifier: x, challenges: [{url: c, token: t, type: http-01}]}]}"
	for _, tc := range []struct {
		reason            string
		gvr               schema.GroupVersionResource
		subresource, kind string
		before, after     string
		want              string
	}{
		{"an order", orders, "", "Order", "", "spec: {request: QQ==, duration: 2160h}", ""},
		{"an order in days", orders, "", "Order", "", "spec: {request: QQ==, duration: 1d}", "spec.duration is not a duration"},
		{"another request", orders, "", "Order", "spec: {request: QQ==}", "spec: {request: Qg==}", "spec.request of an Order"},
		{"news", orders, "status", "Order", "status: {}", known, ""},
		{"more news", orders, "status", "Order", "status: {url: u, authorizations: [{url: a}]}", known, ""},
		{"the same", orders, "status", "Order", known, known + "\n", ""},
		{"another address", orders, "status", "Order", known, strings.Replace(known, "url: u", "url: v", 1), "status.url"},
		{"another token", orders, "status", "Order", known, strings.Replace(known, "token: t", "token: z", 1), "status.authorizations"},
		{"forgotten", orders, "status", "Order", known, "status: {url: u}", "status.authorizations"},
		{"a label on a challenge", challenges, "", "Challenge", "spec: {token: t}", "spec: {token: t}\nmetadata: {labels: {a: b}}", ""},
		{"another solver", challenges, "", "Challenge", "spec: {solver: {}}", "spec: {solver: {dns01: {}}}", "spec of a Challenge"},
	} {
		_, err := g.send(t, request{gvr: tc.gvr, subresource: tc.subresource, kind: tc.kind, user: "ann", before: tc.before, after: tc.after})
		verdict(t, tc.reason, err, tc.want)
	}
}
