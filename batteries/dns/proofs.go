package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/poll"
)

var proofs = []battery.Proof{{
	Feature: "DNS",
	Claim:   "Services, their ports, their pods and their addresses have names in every pod, and a name that nobody has is denied.",
	Check:   proveServices,
}, {
	Feature: "DNS",
	Claim:   "A new service's name resolves within five seconds, and five seconds after its deletion it is gone.",
	Check:   proveChange,
}, {
	Feature: "DNS",
	Claim:   "Every name under the platform's domain leads pods to the gateway, and its neighbours do not.",
	Check:   proveZone,
}, {
	Feature: "DNS",
	Claim:   "About names outside, pods hear what the machine's resolver says, and an error when it says nothing.",
	Check:   proveOutside,
}}

// The services that the proofs make.
const (
	clustered = "web"  // has an address of its own
	headless  = "crew" // leads straight to its pods
)

// settleTime is how long a change may take to be seen in the names.
const settleTime = 5 * time.Second

// outsideTime is how long the answer about a name outside may take: longer than
// the server tries to get one.
const outsideTime = askTimeout + 2*time.Second

// atOnce makes all checks at the same time, so that a server which answers none
// of them is told after the time of one, and returns all errors in their order.
func atOnce(checks ...func() error) error {
	errs := make([]error, len(checks))
	var g errgroup.Group
	for i, check := range checks {
		g.Go(func() error { errs[i] = check(); return nil })
	}
	return errors.Join(append(errs, g.Wait())...)
}

// proveServices asks for each kind of name that the Kubernetes DNS-based service
// discovery specification, version 1.1, defines.
func proveServices(ctx context.Context, s battery.Site) error {
	return withWitness(ctx, s, corev1.DNSClusterFirst, func(ctx context.Context, w *witness) error {
		web, err := w.serve(ctx, clustered, "")
		if err != nil {
			return err
		}
		if _, err := w.serve(ctx, headless, corev1.ClusterIPNone); err != nil {
			return err
		}
		full := func(name string) string { return name + "." + w.namespace + ".svc." + s.ClusterDomain + "." }
		address, pod := web.Spec.ClusterIP, w.pod.Status.PodIP
		addressType := "A"
		if a, err := netip.ParseAddr(address); err == nil && a.Is6() {
			addressType = "AAAA"
		}
		says := func(q Question, records ...string) func() error {
			return func() error { return w.says(ctx, q, records...) }
		}
		denies := func(q Question) func() error {
			return func() error { return w.denies(ctx, q) }
		}
		return atOnce(
			says(Question{Name: clustered, Type: addressType}, address),
			says(Question{Name: clustered + "." + w.namespace, Type: addressType}, address),
			says(Question{Name: full(clustered), Type: addressType}, address),
			says(Question{Name: full(clustered), Type: addressType, TCP: true}, address),
			says(Question{Name: full("_http._tcp." + clustered), Type: "SRV"}, "80 "+full(clustered)),
			says(Question{Name: address, Type: "PTR"}, full(clustered)),
			says(Question{Name: full(headless), Type: addressType}, pod),
			says(Question{Name: full("witness." + headless), Type: addressType}, pod),
			says(Question{Name: full("_http._tcp." + headless), Type: "SRV"}, "8080 "+full("witness."+headless)),

			denies(Question{Name: full("nobody"), Type: addressType}),
			denies(Question{Name: full("nobody"), Type: addressType, TCP: true}),
			denies(Question{Name: full("_ftp._tcp." + clustered), Type: "SRV"}),
			// A short name never leads into another namespace.
			denies(Question{Name: "kubernetes." + w.namespace + ".svc." + s.ClusterDomain + ".", Type: addressType}),
		)
	})
}

func proveChange(ctx context.Context, s battery.Site) error {
	return withWitness(ctx, s, corev1.DNSClusterFirst, func(ctx context.Context, w *witness) error {
		q := Question{Name: clustered + "." + w.namespace + ".svc." + s.ClusterDomain + "."}
		// Asked for before it exists: a server that keeps its denials is late.
		if err := w.denies(ctx, q); err != nil {
			return err
		}
		svc, err := w.serve(ctx, clustered, "")
		if err != nil {
			return err
		}
		if a, err := netip.ParseAddr(svc.Spec.ClusterIP); err == nil && a.Is6() {
			q.Type = "AAAA"
		}
		if err := w.says(ctx, q, svc.Spec.ClusterIP); err != nil {
			return err
		}
		if err := w.client.CoreV1().Services(w.namespace).Delete(ctx, clustered, metav1.DeleteOptions{}); err != nil {
			return fmt.Errorf("delete service %s/%s: %w", w.namespace, clustered, err)
		}
		return w.denies(ctx, q)
	})
}

func proveZone(ctx context.Context, s battery.Site) error {
	return withWitness(ctx, s, corev1.DNSClusterFirst, func(ctx context.Context, w *witness) error {
		svc, err := w.client.CoreV1().Services(battery.NamespaceOf("gateway")).Get(ctx, "gateway", metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("find the gateway's service: %w", err)
		}
		missing := apierrors.IsNotFound(err)
		var checks []func() error
		for _, name := range []string{s.Domain + ".", "any." + s.Domain + ".", "any.team." + s.Domain + "."} {
			if missing {
				// Without a gateway the names lead nowhere.
				checks = append(checks, func() error { return w.denies(ctx, Question{Name: name}) })
				continue
			}
			qtype := "A"
			if a, err := netip.ParseAddr(svc.Spec.ClusterIP); err == nil && a.Is6() {
				qtype = "AAAA"
			}
			checks = append(checks, func() error { return w.says(ctx, Question{Name: name, Type: qtype}, svc.Spec.ClusterIP) })
		}
		return atOnce(append(checks, func() error {
			ctx, cancel := context.WithTimeout(ctx, outsideTime)
			defer cancel()
			neighbour, err := w.lookup(ctx, Question{Name: "not" + s.Domain + "."})
			if err == nil && !missing && slices.Contains(neighbour.Records, svc.Spec.ClusterIP) {
				err = fmt.Errorf("%q leads to the gateway and must not", neighbour.Name)
			}
			return err
		})...)
	})
}

// outsideNames are asked for because their answers are known not to change from
// one minute to the next: the root, a name kept for examples (RFC 2606) and one
// that never exists (RFC 6761).
var outsideNames = []Question{{Name: ".", Type: "NS"}, {Name: "example.com."}, {Name: "emerald.invalid."}}

// proveOutside compares what pods are told with what the machine's resolver says
// to the same question. So it holds with a network, without one, and behind a
// resolver that knows only its own company's names.
func proveOutside(ctx context.Context, s battery.Site) error {
	upstreams, err := expectedUpstreams(ctx, s)
	if err != nil {
		return err
	}
	return withWitness(ctx, s, corev1.DNSClusterFirst, func(ctx context.Context, w *witness) error {
		g, ctx := errgroup.WithContext(ctx)
		for _, q := range outsideNames {
			g.Go(func() error { return w.passesOn(ctx, q, upstreams) })
		}
		return g.Wait()
	})
}

// expectedUpstreams returns the resolvers that the server should be using.
func expectedUpstreams(ctx context.Context, s battery.Site) ([]string, error) {
	if cfg, ok := s.Config.(Config); ok && len(cfg.Upstreams) > 0 {
		return cfg.Upstreams, nil
	}
	client, err := kubernetes.NewForConfig(s.Kube)
	if err != nil {
		return nil, fmt.Errorf("reach the API: %w", err)
	}
	cm, err := client.CoreV1().ConfigMaps(battery.SystemNamespace).Get(ctx, hostSettings, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read the machine's settings: %w", err)
	}
	usable := others(s.DNSAddress)
	if err == nil {
		if found := nameservers([]byte(cm.Data[hostResolvConf]), usable); len(found) > 0 {
			return found, nil
		}
	}
	// What a pod that does not use the cluster's DNS gets from its machine.
	var found []string
	err = withWitness(ctx, s, corev1.DNSDefault, func(ctx context.Context, w *witness) error {
		var servers []string
		if err := w.get(ctx, "/resolvers", nil, &servers); err != nil {
			return err
		}
		for _, server := range servers {
			if a, err := netip.ParseAddr(server); err == nil && usable(a) {
				found = append(found, server)
			}
		}
		return nil
	})
	return found, err
}

// serve makes a service in front of the witness. address is "" or "None".
func (w *witness) serve(ctx context.Context, name, address string) (*corev1.Service, error) {
	port := int32(80)
	if address == corev1.ClusterIPNone {
		port = witnessPort
	}
	svc, err := w.client.CoreV1().Services(w.namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			ClusterIP: address,
			Selector:  map[string]string{"app": "witness"},
			Ports:     []corev1.ServicePort{{Name: "http", Port: port, TargetPort: intstr.FromInt32(witnessPort)}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("make service %s/%s: %w", w.namespace, name, err)
	}
	return svc, nil
}

// says returns nil once the witness gets just these records.
func (w *witness) says(ctx context.Context, q Question, records ...string) error {
	slices.Sort(records)
	return w.settles(ctx, q, fmt.Sprintf("%v", records), func(a Answer) bool {
		return a.Code == "NOERROR" && slices.Equal(a.Records, records)
	})
}

// denies returns nil once the witness hears that there is no such name.
func (w *witness) denies(ctx context.Context, q Question) error {
	return w.settles(ctx, q, "NXDOMAIN", func(a Answer) bool { return a.Code == "NXDOMAIN" && len(a.Records) == 0 })
}

// settles asks until the answer is good, for as long as a change may take.
func (w *witness) settles(ctx context.Context, q Question, want string, good func(Answer) bool) error {
	var got Answer
	var last error
	err := poll.Until(ctx, 50*time.Millisecond, settleTime, func(ctx context.Context) (bool, error) {
		a, err := w.lookup(ctx, q)
		switch {
		case err == nil:
			got, last = a, nil
			return good(a), nil
		case !poll.Over(ctx):
			last = err
		case last == nil && got.Code == "":
			last = fmt.Errorf("no answer within %s", settleTime)
		}
		return false, nil
	})
	switch {
	case err == nil:
		return nil
	case last != nil:
		return fmt.Errorf("look up %s in a pod: %w", q, last)
	}
	return fmt.Errorf("look up %s in a pod: want %s, got %s %v after %s", q, want, got.Code, got.Records, settleTime)
}

// passesOn returns nil when pods get the answer that the first of the upstreams
// with an answer gives, or SERVFAIL when none has one.
func (w *witness) passesOn(ctx context.Context, q Question, upstreams []string) error {
	want := "SERVFAIL"
	for _, server := range upstreams {
		direct := q
		direct.Server = server
		if a, err := w.lookup(ctx, direct); err == nil {
			want = a.Code
			break
		}
	}
	a, err := w.lookup(ctx, q)
	if err != nil {
		return fmt.Errorf("look up %s in a pod: %w", q, err)
	}
	if a.Code != want {
		return fmt.Errorf("look up %s in a pod: got %s, but the resolvers %v say %s", q, a.Code, upstreams, want)
	}
	return nil
}
