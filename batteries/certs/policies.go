package certs

import (
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emerald-platform/emerald/kit/kube"
)

// check is one thing that must hold of an object, in the Common Expression
// Language, and what its author is told when it does not: the field, what is
// wrong with it, and what would be right.
type check struct{ must, message string }

// ruling is a ValidatingAdmissionPolicy in the making. cert-manager leaves all
// of this to a webhook, and its controllers rely on it: a duration they cannot
// read, for one, would stop them from seeing any object of that kind.
type ruling struct {
	name       string
	group      string
	resources  []string
	operations []admissionv1.OperationType
	when       []condition // all must hold, or the object passes
	variables  []variable
	checks     []check
}

type (
	condition struct{ name, holds string }
	variable  struct{ name, is string }
)

var (
	creates = []admissionv1.OperationType{admissionv1.Create}
	changes = []admissionv1.OperationType{admissionv1.Update}
	either  = []admissionv1.OperationType{admissionv1.Create, admissionv1.Update}
)

// specChanges lets pass what leaves the spec alone, so that an object from
// before the policy can still be labelled, finished and deleted.
var specChanges = condition{"spec-changes", "request.operation == 'CREATE' || object.spec != oldObject.spec"}

// validations returns everything that refuses objects on their way into the API.
func validations() []kube.Object {
	var out []kube.Object
	for _, r := range []ruling{
		certificateRuling(), requestRuling(), requestChangeRuling(), approvalRuling(),
		issuerRuling(), dns01Ruling(), orderRuling(), orderStatusRuling(), challengeRuling(),
	} {
		out = append(out, r.objects()...)
	}
	return out
}

// objects returns the policy and what puts it in force everywhere.
func (r ruling) objects() []kube.Object {
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: r.name},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: new(admissionv1.Fail),
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{
				rules(r.group, r.operations, r.resources...),
			}},
		},
	}
	for _, c := range r.when {
		policy.Spec.MatchConditions = append(policy.Spec.MatchConditions, admissionv1.MatchCondition{Name: c.name, Expression: c.holds})
	}
	for _, v := range r.variables {
		policy.Spec.Variables = append(policy.Spec.Variables, admissionv1.Variable{Name: v.name, Expression: v.is})
	}
	for _, c := range r.checks {
		policy.Spec.Validations = append(policy.Spec.Validations, admissionv1.Validation{
			Expression: c.must, Message: c.message, Reason: new(metav1.StatusReasonInvalid),
		})
	}
	return []kube.Object{policy, &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: r.name},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: r.name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}}
}

func rules(group string, operations []admissionv1.OperationType, resources ...string) admissionv1.NamedRuleWithOperations {
	return admissionv1.NamedRuleWithOperations{RuleWithOperations: admissionv1.RuleWithOperations{
		Operations: operations,
		Rule:       admissionv1.Rule{APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: resources},
	}}
}

// durationPattern is what Go's time.ParseDuration takes, without a sign.
const durationPattern = `r'^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$'`

// isDuration says in CEL that a field, whose parents exist, is absent or a
// duration that can be read.
func isDuration(field string) string {
	return "!has(" + field + ") || " + field + ".matches(" + durationPattern + ")"
}

// durationHint ends the message about a duration.
const durationHint = ` is not a duration: write hours, minutes and seconds, for example "2160h" for 90 days`

// issuerRefChecks are about the issuer that a Certificate or CertificateRequest
// names.
var issuerRefChecks = []check{
	{"object.spec.issuerRef.name != ''", "spec.issuerRef.name is empty: name the Issuer or ClusterIssuer to use"},
	{
		"(has(object.spec.issuerRef.group) && !(object.spec.issuerRef.group in ['', 'cert-manager.io'])) || " +
			"!has(object.spec.issuerRef.kind) || object.spec.issuerRef.kind in ['', 'Issuer', 'ClusterIssuer']",
		"spec.issuerRef.kind is neither Issuer nor ClusterIssuer: for an issuer of another group set spec.issuerRef.group too",
	},
}

// oneIsSet says in CEL that at least one of an object's fields, strings or
// lists, is there and not empty.
func oneIsSet(object string, fields ...string) string {
	var out []string
	for _, f := range fields {
		out = append(out, isSet(object+"."+f))
	}
	return strings.Join(out, " || ")
}

// isSet says in CEL that a string or list, whose parents exist, is there and not
// empty.
func isSet(field string) string { return "(has(" + field + ") && size(" + field + ") > 0)" }

// howMany says in CEL how many of an object's fields are there.
func howMany(object string, fields ...string) string {
	var out []string
	for _, f := range fields {
		out = append(out, "(has("+object+"."+f+") ? 1 : 0)")
	}
	return strings.Join(out, " + ")
}
