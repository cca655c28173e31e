package apps

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

// render returns everything an App is made of, each object owned by the App. It
// is pure: the same App, user and site give the same objects.
//
// All are named after the App. What needs a second name gets one with a dot,
// which no App's name can have, so that Apps never collide.
func render(app *v1alpha1.App, user v1alpha1.ImageUserKind, s battery.Site) ([]kube.Object, error) {
	r := rendering{app: app, user: user, site: s, config: config(s)}
	objs := []kube.Object{r.serviceAccount(), r.service()}
	deployment, err := r.deployment()
	if err != nil {
		return nil, err
	}
	objs = append(objs, deployment)
	if r.replicas() > 1 {
		objs = append(objs, r.disruptionBudget())
	}
	if set := r.listenerSet(); set != nil {
		objs = append(objs, set)
	}
	return append(objs, r.route(), r.redirect()), nil
}

// rendering is one call of render.
type rendering struct {
	app    *v1alpha1.App
	user   v1alpha1.ImageUserKind
	site   battery.Site
	config Config
}

// meta returns the metadata of an object of the App.
func (r rendering) meta(name string) metav1.ObjectMeta {
	yes := true
	return metav1.ObjectMeta{
		Name: name, Namespace: r.app.Namespace,
		Labels: map[string]string{
			v1alpha1.LabelApp:              r.app.Name,
			"app.kubernetes.io/name":       r.app.Name,
			"app.kubernetes.io/managed-by": "emerald",
		},
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: v1alpha1.GroupVersion.String(), Kind: "App", Name: r.app.Name, UID: r.app.UID,
			Controller: &yes, BlockOwnerDeletion: &yes,
		}},
	}
}

func typed(group, version, kind string) metav1.TypeMeta {
	if group != "" {
		version = group + "/" + version
	}
	return metav1.TypeMeta{APIVersion: version, Kind: kind}
}

// selector returns the labels that all pods of the App carry, whatever their
// revision.
func (r rendering) selector() map[string]string {
	return map[string]string{v1alpha1.LabelApp: r.app.Name}
}

func (r rendering) replicas() int32 {
	if r.app.Spec.Replicas != nil {
		return *r.app.Spec.Replicas
	}
	return max(1, r.site.Replicas)
}

// serviceAccount is the App's own identity. Images are pulled with it, so that
// the registry can tell who may read what; pods get no token of it.
func (r rendering) serviceAccount() kube.Object {
	no := false
	return &corev1.ServiceAccount{
		TypeMeta: typed("", "v1", "ServiceAccount"), ObjectMeta: r.meta(r.app.Name),
		AutomountServiceAccountToken: &no,
	}
}

func (r rendering) service() kube.Object {
	return &corev1.Service{
		TypeMeta: typed("", "v1", "Service"), ObjectMeta: r.meta(r.app.Name),
		Spec: corev1.ServiceSpec{
			Selector: r.selector(),
			Ports: []corev1.ServicePort{{
				Name: "http", Protocol: corev1.ProtocolTCP, Port: servicePort, TargetPort: intstr.FromString("http"),
			}},
		},
	}
}

// servicePort is the port of every App's Service, so that one app reaches
// another at http://NAME.
const servicePort = 80

// Times of a rolling update.
const (
	// settleSeconds is how long a new copy must stay healthy before an old one
	// may go: it catches what dies right after it began to listen.
	settleSeconds = 1
	// drainSeconds is how long a copy that is told to go keeps serving, so that
	// every gateway and node has learned that it is going. That takes tens of
	// milliseconds; the rest is for machines under load.
	drainSeconds = 5
	// graceSeconds is how long a copy has in all, drain included, to finish
	// what it is doing.
	graceSeconds = 30
	// deadlineSeconds is when a rollout that makes no progress is given up.
	deadlineSeconds = 300
)

func (r rendering) deployment() (kube.Object, error) {
	pod, err := r.podSpec()
	if err != nil {
		return nil, err
	}
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: r.meta(r.app.Name).Labels},
		Spec:       pod,
	}
	fingerprint, err := digest(template)
	if err != nil {
		return nil, fmt.Errorf("fingerprint the pods of app %q: %w", r.app.Name, err)
	}
	template.Labels[v1alpha1.LabelTemplate] = fingerprint

	replicas, deadline, history := r.replicas(), int32(deadlineSeconds), int32(2)
	none, half := intstr.FromInt32(0), intstr.FromString("50%")
	return &appsv1.Deployment{
		TypeMeta: typed("apps", "v1", "Deployment"), ObjectMeta: r.meta(r.app.Name),
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: r.selector()},
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: &none, MaxSurge: &half},
			},
			MinReadySeconds:         settleSeconds,
			ProgressDeadlineSeconds: &deadline,
			RevisionHistoryLimit:    &history,
			Template:                template,
		},
	}, nil
}

// disruptionBudget lets machines be drained one copy at a time.
func (r rendering) disruptionBudget() kube.Object {
	one, always := intstr.FromInt32(1), policyv1.AlwaysAllow
	return &policyv1.PodDisruptionBudget{
		TypeMeta: typed("policy", "v1", "PodDisruptionBudget"), ObjectMeta: r.meta(r.app.Name),
		Spec: policyv1.PodDisruptionBudgetSpec{
			Selector:                   &metav1.LabelSelector{MatchLabels: r.selector()},
			MaxUnavailable:             &one,
			UnhealthyPodEvictionPolicy: &always,
		},
	}
}

// ownListeners returns the hosts that the Gateway's own listeners do not serve.
func (r rendering) ownListeners() []string {
	var hosts []string
	for _, h := range hostsOf(r.app, r.site.Domain) {
		if !covered(h, r.site.Domain) {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// listenerSet adds listeners to the Gateway for the hosts it does not cover;
// cert-manager makes a certificate for each (Gateway API GEP-1713). It is nil
// when there are none.
func (r rendering) listenerSet() kube.Object {
	hosts := r.ownListeners()
	if len(hosts) == 0 {
		return nil
	}
	set := &gatewayv1.ListenerSet{
		TypeMeta: typed(gatewayv1.GroupName, "v1", "ListenerSet"), ObjectMeta: r.meta(r.app.Name),
		Spec: gatewayv1.ListenerSetSpec{ParentRef: gatewayv1.ParentGatewayReference{
			Group: new(gatewayv1.Group(gatewayv1.GroupName)), Kind: new(gatewayv1.Kind("Gateway")),
			Name: gatewayv1.ObjectName(r.config.Gateway.Name), Namespace: new(gatewayv1.Namespace(r.config.Gateway.Namespace)),
		}},
	}
	set.Annotations = map[string]string{
		"cert-manager.io/cluster-issuer": r.config.Issuer,
		// cert-manager leaves Secrets behind; with the label whoever deletes
		// the App can tell which.
		"cert-manager.io/secret-template": fmt.Sprintf(`{"labels":{%q:%q}}`, v1alpha1.LabelApp, r.app.Name),
	}
	for _, host := range hosts {
		allowed := &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: new(gatewayv1.NamespacesFromSame)}}
		set.Spec.Listeners = append(set.Spec.Listeners,
			gatewayv1.ListenerEntry{
				Name: listener("http", host), Hostname: new(gatewayv1.Hostname(host)),
				Port: 80, Protocol: gatewayv1.HTTPProtocolType, AllowedRoutes: allowed,
			},
			gatewayv1.ListenerEntry{
				Name: listener("https", host), Hostname: new(gatewayv1.Hostname(host)),
				Port: 443, Protocol: gatewayv1.HTTPSProtocolType, AllowedRoutes: allowed,
				TLS: &gatewayv1.ListenerTLSConfig{
					Mode: new(gatewayv1.TLSModeTerminate),
					CertificateRefs: []gatewayv1.SecretObjectReference{{
						Group: new(gatewayv1.Group("")), Kind: new(gatewayv1.Kind("Secret")),
						Name: gatewayv1.ObjectName(r.app.Name + "." + host + ".tls"),
					}},
				},
			})
	}
	return set
}

// listener names the listener of a scheme and host in the App's ListenerSet.
func listener(scheme, host string) gatewayv1.SectionName {
	return gatewayv1.SectionName(scheme + "-" + host)
}

// parents returns the listeners of a scheme that the App's hosts arrive at:
// below is the Gateway's for names below the platform's domain, root that for the
// domain itself.
func (r rendering) parents(scheme, below, root string) []gatewayv1.ParentReference {
	var refs []gatewayv1.ParentReference
	seen := map[string]bool{}
	for _, host := range hostsOf(r.app, r.site.Domain) {
		section := below
		if host == r.site.Domain {
			section = root
		}
		switch {
		case !covered(host, r.site.Domain):
			refs = append(refs, gatewayv1.ParentReference{
				Group: new(gatewayv1.Group(gatewayv1.GroupName)), Kind: new(gatewayv1.Kind("ListenerSet")),
				Name: gatewayv1.ObjectName(r.app.Name), SectionName: new(listener(scheme, host)),
			})
		case !seen[section]:
			seen[section] = true
			refs = append(refs, gatewayv1.ParentReference{
				Group: new(gatewayv1.Group(gatewayv1.GroupName)), Kind: new(gatewayv1.Kind("Gateway")),
				Name: gatewayv1.ObjectName(r.config.Gateway.Name), Namespace: new(gatewayv1.Namespace(r.config.Gateway.Namespace)),
				SectionName: new(gatewayv1.SectionName(section)),
			})
		}
	}
	return refs
}

func (r rendering) hostnames() []gatewayv1.Hostname {
	var out []gatewayv1.Hostname
	for _, h := range hostsOf(r.app, r.site.Domain) {
		out = append(out, gatewayv1.Hostname(h))
	}
	return out
}

// route leads the App's hosts over HTTPS to its Service.
func (r rendering) route() kube.Object {
	return &gatewayv1.HTTPRoute{
		TypeMeta: typed(gatewayv1.GroupName, "v1", "HTTPRoute"), ObjectMeta: r.meta(r.app.Name),
		Spec: gatewayv1.HTTPRouteSpec{
			CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: r.parents("https", r.config.Gateway.HTTPS, r.config.Gateway.HTTPSRoot)},
			Hostnames:       r.hostnames(),
			Rules: []gatewayv1.HTTPRouteRule{{
				Matches: everything(),
				BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{
					BackendObjectReference: gatewayv1.BackendObjectReference{
						Group: new(gatewayv1.Group("")), Kind: new(gatewayv1.Kind("Service")),
						Name: gatewayv1.ObjectName(r.app.Name), Port: new(gatewayv1.PortNumber(servicePort)),
					},
					Weight: new(int32(1)),
				}}},
			}},
		},
	}
}

// redirect sends plain HTTP to HTTPS.
func (r rendering) redirect() kube.Object {
	return &gatewayv1.HTTPRoute{
		TypeMeta: typed(gatewayv1.GroupName, "v1", "HTTPRoute"), ObjectMeta: r.meta(r.app.Name + ".redirect"),
		Spec: gatewayv1.HTTPRouteSpec{
			CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: r.parents("http", r.config.Gateway.HTTP, r.config.Gateway.HTTPRoot)},
			Hostnames:       r.hostnames(),
			Rules: []gatewayv1.HTTPRouteRule{{
				Matches: everything(),
				Filters: []gatewayv1.HTTPRouteFilter{{
					Type: gatewayv1.HTTPRouteFilterRequestRedirect,
					RequestRedirect: &gatewayv1.HTTPRequestRedirectFilter{
						Scheme: new("https"), StatusCode: new(301),
					},
				}},
			}},
		},
	}
}

// everything matches every path. The API server would add it; with it here,
// what is rendered is what is stored.
func everything() []gatewayv1.HTTPRouteMatch {
	return []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{
		Type: new(gatewayv1.PathMatchPathPrefix), Value: new("/"),
	}}}
}

// digest returns a fingerprint of v that fits a label.
func digest(v any) (string, error) {
	raw, err := canonical(v)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:5]), nil
}

// pinned tells whether a reference names its content and not just a tag.
func pinned(image string) bool { return strings.Contains(image, "@sha256:") }
