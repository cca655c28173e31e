package dns

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/poll"
)

// witnessPort is where the witness answers questions over HTTP.
const witnessPort = 8080

// witness is a pod, in a namespace of its own, that says what it sees of the
// world's names: the proofs ask it through the API, as any user could.
type witness struct {
	client    kubernetes.Interface
	namespace string
	pod       *corev1.Pod
}

// withWitness makes a witness whose resolver is chosen by policy, calls check
// with it, and removes it whatever happens.
func withWitness(ctx context.Context, s battery.Site, policy corev1.DNSPolicy, check func(context.Context, *witness) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	client, err := kubernetes.NewForConfig(s.Kube)
	if err != nil {
		return fmt.Errorf("reach the API: %w", err)
	}
	ns, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "proof-dns-",
		Labels:       map[string]string{"pod-security.kubernetes.io/enforce": "restricted", "emerald.dev/proof": "dns"},
	}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("make a namespace for the proof: %w", err)
	}
	defer func() {
		// ctx may have ended; what the proof made must go all the same.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if e := client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{}); e != nil && err == nil {
			err = fmt.Errorf("remove namespace %q: %w", ns.Name, e)
		}
	}()
	w := &witness{client: client, namespace: ns.Name}
	// An account of its own: the namespace's default one takes a while to appear.
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "witness"}}
	if _, err := client.CoreV1().ServiceAccounts(ns.Name).Create(ctx, account, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("make service account %s/witness: %w", ns.Name, err)
	}
	if _, err := client.CoreV1().Pods(ns.Name).Create(ctx, witnessPod(s.Image, policy), metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("make pod %s/witness: %w", ns.Name, err)
	}
	if err := w.ready(ctx); err != nil {
		return err
	}
	return check(ctx, w)
}

func witnessPod(image string, policy corev1.DNSPolicy) *corev1.Pod {
	yes, no := true, false
	user := int64(battery.UserID)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "witness", Labels: map[string]string{"app": "witness"}},
		Spec: corev1.PodSpec{
			ServiceAccountName:            "witness",
			AutomountServiceAccountToken:  &no,
			EnableServiceLinks:            &no,
			DNSPolicy:                     policy,
			Hostname:                      "witness",
			Subdomain:                     headless,
			TerminationGracePeriodSeconds: new(int64),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user,
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "witness", Image: image, ImagePullPolicy: corev1.PullNever,
				Command: []string{"/emerald", "lookup", "--serve", ":" + strconv.Itoa(witnessPort)},
				ReadinessProbe: &corev1.Probe{
					PeriodSeconds: 1,
					ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
						Path: "/resolvers", Port: intstr.FromInt32(witnessPort),
					}},
				},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}

// ready waits until the witness listens.
func (w *witness) ready(ctx context.Context) error {
	state := "not seen yet"
	err := poll.Until(ctx, 100*time.Millisecond, time.Minute, func(ctx context.Context) (bool, error) {
		pod, err := w.client.CoreV1().Pods(w.namespace).Get(ctx, "witness", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		w.pod, state = pod, string(pod.Status.Phase)
		for _, c := range pod.Status.ContainerStatuses {
			if c.State.Waiting != nil {
				state = c.State.Waiting.Reason + " " + c.State.Waiting.Message
			}
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("wait for pod %s/witness (%s): %w", w.namespace, state, err)
	}
	return nil
}

// get asks the witness for a path and decodes its JSON answer into out.
func (w *witness) get(ctx context.Context, path string, params map[string]string, out any) error {
	raw, err := w.client.CoreV1().Pods(w.namespace).
		ProxyGet("http", "witness", strconv.Itoa(witnessPort), path, params).DoRaw(ctx)
	if err != nil {
		// The body says why; err only that it is a 502.
		return fmt.Errorf("ask pod %s/witness: %w: %s", w.namespace, err, raw)
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("read the answer of pod %s/witness: %w", w.namespace, err)
	}
	return nil
}

// lookup has the witness look up a name.
func (w *witness) lookup(ctx context.Context, q Question) (Answer, error) {
	var a Answer
	err := w.get(ctx, "/", map[string]string{
		"name": q.Name, "type": q.Type, "server": q.Server, "tcp": strconv.FormatBool(q.TCP),
	}, &a)
	return a, err
}
