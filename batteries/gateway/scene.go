package gateway

import (
	"context"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/control"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/poll"
	"github.com/emerald-platform/emerald/kit/reach"
)

// routeName is the HTTPRoute of a scene.
const routeName = "proof"

// scene is what a proof works with: a namespace of its own with two backends,
// "one" and "two", and a host name that leads to the gateway.
type scene struct {
	client    client.Client
	namespace string
	host      string
	port      int32
	http      *http.Client
}

// withScene makes a scene, calls check with it, and removes it whatever
// happens.
func withScene(ctx context.Context, s battery.Site, check func(context.Context, *scene) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	scheme, err := control.NewScheme()
	if err != nil {
		return err
	}
	c, err := client.New(s.Kube, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("reach the API: %w", err)
	}
	route, err := reach.New(ctx, s.Kube)
	if err != nil {
		return err
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "proof-gateway-",
		Labels:       map[string]string{"pod-security.kubernetes.io/enforce": "restricted", "emerald.dev/proof": "gateway"},
	}}
	if err := c.Create(ctx, ns); err != nil {
		return fmt.Errorf("make a namespace for the proof: %w", err)
	}
	transport := route.Transport()
	defer transport.CloseIdleConnections()
	defer func() {
		// ctx may have ended; what the proof made must go all the same.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if e := c.Delete(ctx, ns); e != nil && err == nil {
			err = fmt.Errorf("remove namespace %q: %w", ns.Name, e)
		}
	}()
	sc := &scene{
		client: c, namespace: ns.Name, host: ns.Name + "." + s.Domain, port: 80,
		http: &http.Client{
			Transport: transport, Timeout: 15 * time.Second,
			// What the gateway itself answers is looked at.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	if cfg, ok := s.Config.(Config); ok {
		sc.port = cfg.HTTPPort
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "echo"}}
	if err := c.Create(ctx, account); err != nil {
		return fmt.Errorf("make service account %s/echo: %w", ns.Name, err)
	}
	for _, name := range []string{"one", "two"} {
		if err := sc.backend(ctx, s.Image, name); err != nil {
			return err
		}
	}
	for _, name := range []string{"one", "two"} {
		if err := sc.ready(ctx, name); err != nil {
			return err
		}
	}
	return check(ctx, sc)
}

// backend makes a pod that says its name, and its Service.
func (sc *scene) backend(ctx context.Context, image, name string) error {
	const port = 8080
	yes, no, user := true, false, int64(battery.UserID)
	labels := map[string]string{"app": name}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: sc.namespace, Name: name, Labels: labels},
		Spec: corev1.PodSpec{
			ServiceAccountName: "echo", AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
			TerminationGracePeriodSeconds: new(int64),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user,
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "echo", Image: image, ImagePullPolicy: corev1.PullNever,
				Command:        []string{"/emerald", "echo", "--name", name, "--listen", fmt.Sprintf(":%d", port)},
				ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(port)}}},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
	if err := sc.client.Create(ctx, pod); err != nil {
		return fmt.Errorf("make pod %s/%s: %w", sc.namespace, name, err)
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: sc.namespace, Name: name},
		Spec:       corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(port)}}},
	}
	if err := sc.client.Create(ctx, service); err != nil {
		return fmt.Errorf("make Service %s/%s: %w", sc.namespace, name, err)
	}
	return nil
}

// ready waits until a backend's pod is ready.
func (sc *scene) ready(ctx context.Context, name string) error {
	state := "not seen yet"
	err := poll.Until(ctx, 100*time.Millisecond, time.Minute, func(ctx context.Context) (bool, error) {
		var pod corev1.Pod
		if err := sc.client.Get(ctx, client.ObjectKey{Namespace: sc.namespace, Name: name}, &pod); err != nil {
			return false, err
		}
		state = string(pod.Status.Phase)
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("wait for pod %s/%s (%s): %w", sc.namespace, name, state, err)
	}
	return nil
}

// route makes the scene's route have these rules, and waits until the gateway
// says that it serves them.
func (sc *scene) route(ctx context.Context, rules ...gatewayv1.HTTPRouteRule) error {
	namespace, listener := gatewayv1.Namespace(battery.NamespaceOf("gateway")), gatewayv1.SectionName(listenerHTTP)
	r := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: sc.namespace, Name: routeName}}
	key := client.ObjectKeyFromObject(r)
	err := sc.client.Get(ctx, key, r)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return fmt.Errorf("read HTTPRoute %s: %w", key, err)
	}
	patch := client.MergeFrom(r.DeepCopy())
	r.Spec = gatewayv1.HTTPRouteSpec{
		CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Name: defaultGateway, Namespace: &namespace, SectionName: &listener}}},
		Hostnames:       []gatewayv1.Hostname{gatewayv1.Hostname(sc.host)},
		Rules:           rules,
	}
	if missing {
		err = sc.client.Create(ctx, r)
	} else {
		err = sc.client.Patch(ctx, r, patch)
	}
	if err != nil {
		return fmt.Errorf("write HTTPRoute %s: %w", key, err)
	}
	return sc.says(ctx, gatewayv1.RouteConditionAccepted, metav1.ConditionTrue, string(gatewayv1.RouteReasonAccepted))
}
