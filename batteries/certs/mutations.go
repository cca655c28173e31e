package certs

import (
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

// account is whom the battery's controllers act as.
var account = fmt.Sprintf("system:serviceaccount:%s:certs", battery.NamespaceOf("certs"))

// requester writes into a CertificateRequest who makes it, over whatever its
// maker says. Approvers decide by it; requestRuling refuses what this could not
// have written.
//
// Requests that the controllers make for a Certificate are left alone unless
// somebody else approves them: to change an object of a defined kind, the API
// server loads the schemas of its whole group, and until it has seen a new
// definition, which takes seconds, it refuses.
func requester(c Config) []kube.Object {
	// An "add" replaces a field that is there. One without a value must go. What
	// is not made by the expression itself does not turn into JSON: hence the copies.
	field := func(name, transform string) string {
		value, path := "request.userInfo."+name, `"/spec/`+name+`"`
		return `(has(` + value + `) && size(` + value + `) > 0 ? [JSONPatch{op: "add", path: ` + path + `, value: ` + value + transform + `}] : ` +
			`has(object.spec.` + name + `) ? [JSONPatch{op: "remove", path: ` + path + `}] : [])`
	}
	patch := []string{
		field("username", ""), field("uid", ""), field("groups", ".map(g, g)"), field("extra", ".transformMap(k, v, v.map(x, x))"),
	}
	const name = "emerald-certs-requester"
	policy := &admissionv1.MutatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.MutatingAdmissionPolicySpec{
			FailurePolicy:      new(admissionv1.Fail),
			ReinvocationPolicy: admissionv1.NeverReinvocationPolicy,
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{
				rules(group, creates, "certificaterequests"),
			}},
			Mutations: []admissionv1.Mutation{{
				PatchType: admissionv1.PatchTypeJSONPatch,
				JSONPatch: &admissionv1.JSONPatch{Expression: strings.Join(patch, " + ")},
			}},
		},
	}
	if c.AutoApprove {
		policy.Spec.MatchConditions = []admissionv1.MatchCondition{
			{Name: "not-for-a-certificate", Expression: "request.userInfo.username != '" + account + "'"},
		}
	}
	return []kube.Object{policy, &admissionv1.MutatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       admissionv1.MutatingAdmissionPolicyBindingSpec{PolicyName: name},
	}}
}
