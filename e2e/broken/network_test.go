//go:build e2e

package broken

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var tcpBlocked = broke{
	mistake: "a firewall lets DNS through over UDP only",
	make: func(w *world) func() {
		return w.firewall("forward", "ip daddr "+w.podAddress("emerald-dns")+" meta l4proto tcp drop")
	},
	fails: map[string]string{"and a name that nobody has is denied": `over TCP in a pod: (no answer|.*timeout)`},
}

var resolverBlocked = broke{
	mistake: "a firewall keeps the DNS server from the resolvers",
	make: func(w *world) func() {
		return w.firewall("forward", "ip saddr "+w.podAddress("emerald-dns")+" th dport "+resolverPort+" drop")
	},
	fails: map[string]string{"what the machine's resolver says": `got SERVFAIL, but the resolvers \[.*\] say NXDOMAIN`},
}

var dnsDeaf = broke{
	mistake: "a firewall keeps the DNS server from the API, and the gateway gets another address",
	make: func(w *world) func() {
		open := w.firewall("input", "ip saddr "+w.podAddress("emerald-dns")+" tcp dport 6443 reject with tcp reset")
		before := w.gatewayAddress()
		w.kubectl("delete", "service", "-n", "emerald-gateway", "gateway")
		w.eventually("the gateway's service is made again", func(ctx context.Context) error {
			s, err := w.kube.CoreV1().Services("emerald-gateway").Get(ctx, "gateway", metav1.GetOptions{})
			if err == nil && (s.Spec.ClusterIP == before || len(s.Status.LoadBalancer.Ingress) == 0) {
				err = fmt.Errorf("it has address %s", s.Spec.ClusterIP)
			}
			return err
		})
		return func() {
			open()
			w.eventually("the DNS server knows the gateway's address", func(context.Context) error {
				for _, claim := range w.Verify("dns") {
					if !claim.Passed {
						return fmt.Errorf("%s: %s", claim.Claim, claim.Cause)
					}
				}
				return nil
			})
		}
	},
	fails: map[string]string{
		"and a name that nobody has is denied": `want \[10\..*\], got NXDOMAIN`,
		"A new service's name resolves":        `want \[10\..*\], got NXDOMAIN`,
		"leads pods to the gateway":            `want \[10\..*\], got (NXDOMAIN|NOERROR)`,
	},
}

var gatewayDeaf = broke{
	mistake: "a firewall keeps the gateway from the API",
	make: func(w *world) func() {
		return w.firewall("input", "ip saddr "+w.podAddress("emerald-gateway")+" tcp dport 6443 reject with tcp reset")
	},
	fails: map[string]string{
		"A route sends requests by host": `route`,
		"Changing a route under load":    `route`,
		"An image becomes an HTTPS URL":  `gateway`,
		"updated under load":             `gateway`,
		"A host that asks for TLS":       `secret`,
		"renewed when its time comes":    `secret`,
	},
}

// firewall adds a rule to one of the machine's own chains. The returned function
// removes it.
func (w *world) firewall(hook, rule string) func() {
	w.t.Helper()
	w.tables++
	table := fmt.Sprintf("mistake%d", w.tables)
	w.nft("add", "table", "inet", table)
	w.nft("add", "chain", "inet", table, hook, "{ type filter hook "+hook+" priority 0; }")
	w.nft("add", "rule", "inet", table, hook, rule)
	return func() { w.nft("delete", "table", "inet", table) }
}

func (w *world) nft(args ...string) {
	w.t.Helper()
	if err := w.Run(w.Command(w.t.Context(), "nft", args...)); err != nil {
		w.t.Fatalf("nft %s: %v", strings.Join(args, " "), err)
	}
}

// podAddress returns the address of the one pod in a namespace.
func (w *world) podAddress(namespace string) string {
	w.t.Helper()
	pods, err := w.kube.CoreV1().Pods(namespace).List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	pods.Items = slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
	if len(pods.Items) != 1 {
		w.t.Fatalf("%d pods in %s, want one", len(pods.Items), namespace)
	}
	return pods.Items[0].Status.PodIP
}

func (w *world) gatewayAddress() string {
	w.t.Helper()
	s, err := w.kube.CoreV1().Services("emerald-gateway").Get(w.t.Context(), "gateway", metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return s.Spec.ClusterIP
}

// resolverPort is where the resolver of this test answers, beside the machine.
const resolverPort = "5353"

// resolver answers on the host's end of the machine's cable that there is no
// such name, and makes the platform use it: a test cannot count on the host to
// have a resolver that answers.
func (w *world) resolver() {
	host := slices.Clone(w.Address)
	host[3]--
	address := net.JoinHostPort(host.String(), resolverPort)
	server := &mdns.Server{Addr: address, Net: "udp", Handler: mdns.HandlerFunc(func(out mdns.ResponseWriter, q *mdns.Msg) {
		// Who asked is gone or asks again.
		_ = out.WriteMsg(new(mdns.Msg).SetRcode(q, mdns.RcodeNameError))
	})}
	ended := make(chan error, 1)
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() { ended <- server.ListenAndServe() }()
	select {
	case <-started:
	case err := <-ended:
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := server.Shutdown(); err != nil {
			w.t.Error(err)
		}
		<-ended
	})
	before := w.deployment("emerald-dns", "dns").Generation
	w.kubectl("patch", "platform", "emerald", "--type=merge", "-p", `{"spec":{"batteries":{"dns":{"config":{"upstreams":["`+address+`"]}}}}}`)
	w.eventually("the installer gives the DNS server its resolver", func(context.Context) error {
		if w.deployment("emerald-dns", "dns").Generation == before {
			return errors.New("the deployment is the same")
		}
		return nil
	})
	w.rolledOut("emerald-dns", "dns")
}
