package gateway

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/translate"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

// Names that users and other batteries refer to.
const (
	// className is the GatewayClass.
	className = "emerald"
	// defaultGateway is the Gateway on the machines' own ports.
	defaultGateway = "emerald"
	// listenerHTTP and listenerHTTPS are its listeners for names below the
	// platform's domain; with "-root" appended, for the domain itself.
	listenerHTTP  = "http"
	listenerHTTPS = "https"
	// serviceName is the Service of the data plane's pods.
	serviceName = "gateway"
	// machineClass is the class of load balancers by which the machines' own
	// addresses lead to a Service; see package entry of the platform.
	machineClass = "emerald.dev/machine"
	// issuer is the ClusterIssuer of the platform's own certificates.
	issuer = "emerald-ca"
	// certificateName is the Secret with the default Gateway's certificate.
	certificateName = "gateway-tls"
)

// The ports the data plane listens on. Those from firstTarget on are given to
// listeners as they come.
const (
	httpTarget  = 8080
	httpsTarget = 8443
	firstTarget = 10000
	lastTarget  = 29999
)

// settings are the fixed points of the translation.
func settings(s battery.Site) translate.Settings {
	return translate.Settings{
		Controller: "emerald.dev/gateway", Namespace: s.Namespace,
		Default:        types.NamespacedName{Namespace: s.Namespace, Name: defaultGateway},
		DefaultService: serviceName, FirstTarget: firstTarget, LastTarget: lastTarget,
	}
}

func manifests(s battery.Site) ([]kube.Object, error) {
	c := s.Config.(Config)
	if err := check(c); err != nil {
		return nil, err
	}
	objs, err := definitions()
	if err != nil {
		return nil, err
	}
	objs = append(objs, deployment(), service(s, c), policy(), class(s), gateway(s, c))
	return append(objs, rights(s)...), nil
}

// rawDefinitions are the Gateway API's own definitions and the policy that
// guards their upgrades.
//
//go:generate go run ./internal/definitions
//go:embed zz_definitions.json
var rawDefinitions []byte

func definitions() ([]kube.Object, error) {
	var out []kube.Object
	for line := range bytes.Lines(rawDefinitions) {
		o := &unstructured.Unstructured{}
		if err := json.Unmarshal(line, &o.Object); err != nil {
			return nil, fmt.Errorf("read the definitions of the Gateway API: %w", err)
		}
		out = append(out, o)
	}
	return out, nil
}

// deployment replaces pods without a moment in which none accepts
// connections: the new one is ready before the old one is told to go, and that
// one serves until nobody sends to it any more.
func deployment() *appsv1.Deployment {
	one, none := intstr.FromInt32(1), intstr.FromInt32(0)
	grace := int64(gracePeriod.Seconds())
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "gateway"},
		Spec: appsv1.DeploymentSpec{
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &one, MaxUnavailable: &none},
			},
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				TerminationGracePeriodSeconds: &grace,
				Containers: []corev1.Container{{
					Name: "gateway",
					Ports: []corev1.ContainerPort{
						{Name: "http", ContainerPort: httpTarget, Protocol: corev1.ProtocolTCP},
						{Name: "https", ContainerPort: httpsTarget, Protocol: corev1.ProtocolTCP},
					},
					Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
						corev1.ResourceCPU:    resource.MustParse("100m"),
						corev1.ResourceMemory: resource.MustParse("64Mi"),
					}},
				}},
			}},
		},
	}
}

// service is how clients reach the default Gateway. Where Emerald booted the
// machines, it is by their own addresses; elsewhere whoever provides load
// balancers gives it one. Only machines with a pod take part, so that the
// client's address is seen. The status leader adds ports for further listeners.
func service(s battery.Site, c Config) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: serviceName},
		Spec: corev1.ServiceSpec{
			Type:                  corev1.ServiceTypeLoadBalancer,
			ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal,
			Selector:              battery.Selector("gateway"),
			Ports: []corev1.ServicePort{
				{Name: "http", Port: c.HTTPPort, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(httpTarget)},
				{Name: "https", Port: c.HTTPSPort, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(httpsTarget)},
			},
		},
	}
	if s.DataDir != "" {
		class, no := machineClass, false
		svc.Spec.LoadBalancerClass, svc.Spec.AllocateLoadBalancerNodePorts = &class, &no
	}
	return svc
}

// policy lets everyone reach the listeners and the health port, and nothing
// else. What goes out is not limited: backends are whatever routes name.
func policy() *networkingv1.NetworkPolicy {
	tcp, last := corev1.ProtocolTCP, int32(lastTarget)
	port := func(n int32, end *int32) networkingv1.NetworkPolicyPort {
		number := intstr.FromInt32(n)
		return networkingv1.NetworkPolicyPort{Protocol: &tcp, Port: &number, EndPort: end}
	}
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "gateway"},
		Spec: networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{
				port(httpTarget, nil), port(httpsTarget, nil), port(battery.ReadyPort, nil), port(firstTarget, &last),
			}}},
		},
	}
}

func gatewayType(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: gatewayv1.GroupVersion.String(), Kind: kind}
}

func class(s battery.Site) *gatewayv1.GatewayClass {
	description := "The platform's own gateway, on every machine's ports."
	return &gatewayv1.GatewayClass{
		TypeMeta:   gatewayType("GatewayClass"),
		ObjectMeta: metav1.ObjectMeta{Name: className},
		Spec:       gatewayv1.GatewayClassSpec{ControllerName: settings(s).Controller, Description: &description},
	}
}

// gateway is the Gateway on the machines' own ports. cert-manager sees its
// annotation and makes the certificates that its listeners name.
func gateway(s battery.Site, c Config) *gatewayv1.Gateway {
	all := gatewayv1.NamespacesFromAll
	g := &gatewayv1.Gateway{
		TypeMeta: gatewayType("Gateway"),
		ObjectMeta: metav1.ObjectMeta{
			Name: defaultGateway, Namespace: s.Namespace,
			Annotations: map[string]string{"cert-manager.io/cluster-issuer": issuer},
		},
		Spec: gatewayv1.GatewaySpec{
			GatewayClassName: className,
			AllowedListeners: &gatewayv1.AllowedListeners{Namespaces: &gatewayv1.ListenerNamespaces{From: &all}},
		},
	}
	add := func(name, hostname string, port int32, secret string) {
		l := gatewayv1.Listener{
			Name: gatewayv1.SectionName(name), Port: gatewayv1.PortNumber(port), Protocol: gatewayv1.HTTPProtocolType,
			AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &all}},
		}
		if hostname != "" {
			h := gatewayv1.Hostname(hostname)
			l.Hostname = &h
		}
		if secret != "" {
			l.Protocol = gatewayv1.HTTPSProtocolType
			l.TLS = &gatewayv1.ListenerTLSConfig{CertificateRefs: []gatewayv1.SecretObjectReference{{Name: gatewayv1.ObjectName(secret)}}}
		}
		g.Spec.Listeners = append(g.Spec.Listeners, l)
	}
	add(listenerHTTP, "*."+s.Domain, c.HTTPPort, "")
	add(listenerHTTPS, "*."+s.Domain, c.HTTPSPort, certificateName)
	add(listenerHTTP+"-root", s.Domain, c.HTTPPort, "")
	add(listenerHTTPS+"-root", s.Domain, c.HTTPSPort, certificateName)
	for _, l := range c.Listeners {
		secret := ""
		if l.Protocol == "HTTPS" {
			secret = l.Name
		}
		add(l.Name, l.Hostname, l.Port, secret)
	}
	return g
}
