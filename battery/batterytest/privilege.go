package batterytest

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

// A Rule is a least-privilege rule that a battery keeps or is excepted from.
type Rule string

// The rules.
const (
	// Wildcard: no role names "*" as a verb, resource, group or URL.
	Wildcard Rule = "wildcard"
	// Privileged: no container is privileged, may gain privileges, or adds a
	// capability other than NET_BIND_SERVICE.
	Privileged Rule = "privileged"
	// Root: no container runs as root.
	Root Rule = "root"
	// Writable: no container may write to its root file system.
	Writable Rule = "writable"
	// Host: no pod uses the host's namespaces, ports, or paths other than its
	// own directory, Site.DataDir/batteries/<name>.
	Host Rule = "host"
	// Requests: every container requests CPU and memory.
	Requests Rule = "requests"
	// Image: every container runs the platform's own image.
	Image Rule = "image"
	// Policy: the pods of a workload of its own are behind a NetworkPolicy that
	// restricts who reaches them.
	Policy Rule = "policy"
	// Level: the namespace's Pod Security level admits the pods, and no
	// stricter level would.
	Level Rule = "level"
	// Secret: no Secret is rendered with contents: they would be the same
	// everywhere.
	Secret Rule = "secret"
	// Unique: no object is rendered twice.
	Unique Rule = "unique"
)

func privilege(t *testing.T, b *battery.Battery, objs []kube.Object, exceptions []Exception) {
	violations, err := check(b, objs)
	if err != nil {
		t.Fatal(err)
	}
	used := map[Rule]bool{}
	for _, v := range violations {
		used[v.rule] = true
		if !slices.ContainsFunc(exceptions, func(e Exception) bool { return e.rule == v.rule }) {
			t.Errorf("rule %s: %s", v.rule, v.what)
		}
	}
	for _, e := range exceptions {
		if !used[e.rule] {
			t.Errorf("the exception from rule %s is not needed: remove it", e.rule)
		}
		if strings.TrimSpace(e.reason) == "" {
			t.Errorf("the exception from rule %s has no reason", e.rule)
		}
	}
}

// violation is one broken rule.
type violation struct {
	rule Rule
	what string
}

// inspection looks through the objects of one battery.
type inspection struct {
	battery    *battery.Battery
	violations []violation

	pods     []pod
	policies []*networkingv1.NetworkPolicy
	levels   map[string]podsecurity.Level // by namespace
}

// pod is a pod template and whose it is.
type pod struct {
	owner     string
	namespace string
	template  *corev1.PodTemplateSpec
}

// check returns every violation of the rules by the rendered objects.
func check(b *battery.Battery, objs []kube.Object) ([]violation, error) {
	in := inspection{battery: b, levels: map[string]podsecurity.Level{}}
	seen := map[string]bool{}
	for _, o := range objs {
		id := fmt.Sprintf("%s %s/%s", o.GetObjectKind().GroupVersionKind().GroupKind(), o.GetNamespace(), o.GetName())
		if seen[id] {
			in.add(Unique, "%s is rendered twice", id)
		}
		seen[id] = true
		if err := in.sort(o); err != nil {
			return nil, err
		}
	}
	for _, p := range in.pods {
		in.pod(p)
	}
	if err := in.security(); err != nil {
		return nil, err
	}
	in.reach()
	return in.violations, nil
}

func (in *inspection) add(r Rule, format string, args ...any) {
	in.violations = append(in.violations, violation{r, fmt.Sprintf(format, args...)})
}

// sort looks at an object for itself and keeps what must be seen together.
func (in *inspection) sort(o kube.Object) error {
	if u, ok := o.(*unstructured.Unstructured); ok {
		gvk := u.GroupVersionKind()
		if !kube.Scheme.Recognizes(gvk) {
			return nil
		}
		typed, err := kube.Scheme.New(gvk)
		if err != nil {
			return fmt.Errorf("make a %s: %w", gvk, err)
		}
		if err := fromUnstructured(u, typed); err != nil {
			return err
		}
		o = typed.(kube.Object)
	}
	name := fmt.Sprintf("%s %q", o.GetObjectKind().GroupVersionKind().Kind, o.GetName())
	keep := func(t *corev1.PodTemplateSpec) {
		in.pods = append(in.pods, pod{owner: name, namespace: o.GetNamespace(), template: t})
	}
	switch o := o.(type) {
	case *corev1.Namespace:
		in.levels[o.Name] = podsecurity.Level(o.Labels[podsecurity.EnforceLevelLabel])
	case *corev1.Secret:
		if len(o.Data)+len(o.StringData) > 0 {
			in.add(Secret, "%s is rendered with contents: generate them in the cluster", name)
		}
	case *rbacv1.ClusterRole:
		in.rules(name, o.Rules)
	case *rbacv1.Role:
		in.rules(name, o.Rules)
	case *networkingv1.NetworkPolicy:
		in.policies = append(in.policies, o)
	case *appsv1.Deployment:
		keep(&o.Spec.Template)
	case *appsv1.StatefulSet:
		keep(&o.Spec.Template)
	case *appsv1.DaemonSet:
		keep(&o.Spec.Template)
	case *batchv1.Job:
		keep(&o.Spec.Template)
	case *batchv1.CronJob:
		keep(&o.Spec.JobTemplate.Spec.Template)
	}
	return nil
}

func (in *inspection) rules(name string, rules []rbacv1.PolicyRule) {
	for _, r := range rules {
		for _, words := range [][]string{r.Verbs, r.APIGroups, r.Resources, r.NonResourceURLs} {
			for _, w := range words {
				if strings.Contains(w, "*") {
					in.add(Wildcard, "%s names %q: name each one", name, w)
				}
			}
		}
	}
}

func (in *inspection) pod(p pod) {
	spec := &p.template.Spec
	if spec.HostNetwork || spec.HostPID || spec.HostIPC {
		in.add(Host, "%s uses a namespace of the host", p.owner)
	}
	own := path.Join(Site(in.battery).DataDir, "batteries", in.battery.Name)
	for _, v := range spec.Volumes {
		if v.HostPath != nil && v.HostPath.Path != own && !strings.HasPrefix(v.HostPath.Path, own+"/") {
			in.add(Host, "%s mounts %s of the host", p.owner, v.HostPath.Path)
		}
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		in.container(p, spec.SecurityContext, &c)
	}
}

func (in *inspection) container(p pod, shared *corev1.PodSecurityContext, c *corev1.Container) {
	where := fmt.Sprintf("container %q of %s", c.Name, p.owner)
	sc, ps := c.SecurityContext, shared
	if sc == nil {
		sc = &corev1.SecurityContext{}
	}
	if ps == nil {
		ps = &corev1.PodSecurityContext{}
	}
	if isTrue(sc.Privileged) || !isFalse(sc.AllowPrivilegeEscalation) {
		in.add(Privileged, "%s is privileged or may become so", where)
	}
	if sc.Capabilities == nil || !slices.Contains(sc.Capabilities.Drop, "ALL") {
		in.add(Privileged, "%s does not drop ALL capabilities", where)
	} else if i := slices.IndexFunc(sc.Capabilities.Add, func(c corev1.Capability) bool { return c != "NET_BIND_SERVICE" }); i >= 0 {
		in.add(Privileged, "%s adds the capability %s", where, sc.Capabilities.Add[i])
	}
	user, nonRoot := sc.RunAsUser, sc.RunAsNonRoot
	if user == nil {
		user = ps.RunAsUser
	}
	if nonRoot == nil {
		nonRoot = ps.RunAsNonRoot
	}
	if !isTrue(nonRoot) || user == nil || *user == 0 {
		in.add(Root, "%s may run as root", where)
	}
	if !isTrue(sc.ReadOnlyRootFilesystem) {
		in.add(Writable, "%s may write to its root file system", where)
	}
	for _, port := range c.Ports {
		if port.HostPort != 0 {
			in.add(Host, "%s takes port %d of the host", where, port.HostPort)
		}
	}
	for _, r := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if q := c.Resources.Requests[r]; q.IsZero() {
			in.add(Requests, "%s requests no %s", where, r)
		}
	}
	if c.Image != Site(in.battery).Image {
		in.add(Image, "%s runs the image %q, not the platform's", where, c.Image)
	}
}

// security asks the admission controller's own code whether each namespace
// admits its pods, and whether a stricter level would.
func (in *inspection) security() error {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return fmt.Errorf("load the Pod Security checks: %w", err)
	}
	admits := func(level podsecurity.Level, p pod) policy.AggregateCheckResult {
		lv := podsecurity.LevelVersion{Level: level, Version: podsecurity.LatestVersion()}
		return policy.AggregateCheckResults(evaluator.EvaluatePod(lv, &p.template.ObjectMeta, &p.template.Spec))
	}
	needed := podsecurity.LevelRestricted
	ns := battery.NamespaceOf(in.battery.Name)
	for _, p := range in.pods {
		if p.namespace != ns {
			continue
		}
		if res := admits(in.levels[ns], p); !res.Allowed {
			in.add(Level, "namespace %q enforces %q, which refuses %s: %s", ns, in.levels[ns], p.owner, res.ForbiddenDetail())
		}
		switch {
		case !admits(podsecurity.LevelBaseline, p).Allowed:
			needed = podsecurity.LevelPrivileged
		case !admits(podsecurity.LevelRestricted, p).Allowed && needed == podsecurity.LevelRestricted:
			needed = podsecurity.LevelBaseline
		}
	}
	if len(in.pods) > 0 && podsecurity.CompareLevels(in.levels[ns], needed) < 0 {
		in.add(Level, "namespace %q enforces %q, though %q would do", ns, in.levels[ns], needed)
	}
	return nil
}

// reach demands that a workload of its own says who may reach it.
func (in *inspection) reach() {
	if in.battery.Where != battery.Own {
		return
	}
	for _, p := range in.pods {
		if !slices.ContainsFunc(in.policies, func(np *networkingv1.NetworkPolicy) bool { return guards(np, p) }) {
			in.add(Policy, "%s has no NetworkPolicy that says who may reach it", p.owner)
		}
	}
}

// guards tells whether the policy selects the pod and restricts its ingress.
func guards(np *networkingv1.NetworkPolicy, p pod) bool {
	selector, err := metav1.LabelSelectorAsSelector(&np.Spec.PodSelector)
	if err != nil || np.Namespace != p.namespace || !selector.Matches(labels.Set(p.template.Labels)) {
		return false
	}
	// Without types a policy restricts ingress.
	if len(np.Spec.PolicyTypes) > 0 && !slices.Contains(np.Spec.PolicyTypes, networkingv1.PolicyTypeIngress) {
		return false
	}
	// A rule without ports and peers lets everybody reach everything.
	return !slices.ContainsFunc(np.Spec.Ingress, func(r networkingv1.NetworkPolicyIngressRule) bool {
		return len(r.From) == 0 && len(r.Ports) == 0
	})
}

func isTrue(b *bool) bool  { return b != nil && *b }
func isFalse(b *bool) bool { return b != nil && !*b }

func fromUnstructured(u *unstructured.Unstructured, into any) error {
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, into); err != nil {
		return fmt.Errorf("decode %s %q: %w", u.GetKind(), u.GetName(), err)
	}
	return nil
}
