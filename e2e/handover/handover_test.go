//go:build e2e

// Package handover replaces batteries that have one copy while clients use
// them: no client may notice.
package handover

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emerald-platform/emerald/e2e/fixture"
)

// pace is how often a client asks, deadline what it waits for an answer.
const (
	pace     = 20 * time.Millisecond
	deadline = 5 * time.Second
)

func TestHandover(t *testing.T) {
	m := fixture.Boot(t)
	service, err := m.Client().CoreV1().Services("emerald-dns").Get(t.Context(), "kube-dns", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	server := net.JoinHostPort(service.Spec.ClusterIP, "53")
	kept, err := m.Dial(t.Context(), "udp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	for _, c := range []struct {
		battery, how string
		ask          func(context.Context) error
	}{
		{"dns", "each question from a port of its own", func(ctx context.Context) error {
			conn, err := m.Dial(ctx, "udp", server)
			if err != nil {
				return err
			}
			defer conn.Close()
			return lookup(ctx, conn)
		}},
		// A machine leads what comes from one port to one pod for as long as
		// that pod serves, though there is another.
		{"dns", "all questions from one port", func(ctx context.Context) error { return lookup(ctx, kept) }},
		{"gateway", "each request on a connection of its own", visit(m.Browser())},
	} {
		battery, namespace, ask := c.battery, "emerald-"+c.battery, c.ask
		rollout := func(t *testing.T) {
			m.Emerald("kubectl", "rollout", "status", "-n", namespace, "deployment/"+battery, "--timeout=60s")
		}
		t.Run("a new version of "+battery+", "+c.how, func(t *testing.T) {
			whileAsking(t, ask, func() {
				m.Emerald("kubectl", "rollout", "restart", "-n", namespace, "deployment/"+battery)
				rollout(t)
				gone(t, m, namespace)
			})
		})
		// Nobody waits for a successor here: the one that leaves goes on
		// answering until there is one.
		t.Run("the pod of "+battery+" is deleted, "+c.how, func(t *testing.T) {
			whileAsking(t, ask, func() {
				m.Emerald("kubectl", "delete", "pod", "-n", namespace, "-l", "app.kubernetes.io/name="+battery)
				rollout(t)
				gone(t, m, namespace)
			})
		})
	}
}

// gone waits until no pod of the namespace is on its way out.
func gone(t *testing.T, m *fixture.Machine, namespace string) {
	t.Helper()
	m.Eventually("the old pods are gone", 2*time.Minute, func(ctx context.Context) error {
		pods, err := m.Client().CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, p := range pods.Items {
			if p.DeletionTimestamp != nil {
				return fmt.Errorf("pod %s is still there", p.Name)
			}
		}
		return nil
	})
}

// whileAsking calls change while a client asks all the time, and fails the test
// for every answer that is missing.
func whileAsking(t *testing.T, ask func(context.Context) error, change func()) {
	t.Helper()
	if err := ask(t.Context()); err != nil {
		t.Fatalf("before the change: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var asking sync.WaitGroup
	asked, failed := 0, 0
	asking.Go(func() {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			// Not ctx: what has been asked shall be answered.
			if err := ask(t.Context()); err != nil {
				failed++
				t.Errorf("question %d at %s: %v", asked, time.Now().Format("15:04:05.000"), err)
			}
			if asked++; failed > 10 {
				return
			}
		}
	})
	change()
	stop()
	asking.Wait()
	if asked < 50 {
		t.Errorf("only %d questions were asked: that proves little", asked)
	}
	t.Logf("%d questions, %d without an answer", asked, failed)
}

// lookup asks the cluster's DNS once, over a connection of UDP.
func lookup(ctx context.Context, conn net.Conn) error {
	question := new(mdns.Msg).SetQuestion("kubernetes.default.svc.cluster.local.", mdns.TypeA)
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	answer, _, err := (&mdns.Client{Timeout: deadline}).ExchangeWithConnContext(ctx, question, &mdns.Conn{Conn: conn})
	if err != nil {
		return err
	}
	if answer.Rcode != mdns.RcodeSuccess || len(answer.Answer) == 0 {
		return fmt.Errorf("%s, %d answers", mdns.RcodeToString[answer.Rcode], len(answer.Answer))
	}
	return nil
}

// visit sends one request through the gateway to the registry.
func visit(browser *http.Client) func(context.Context) error {
	browser.Timeout = deadline
	browser.Transport.(*http.Transport).DisableKeepAlives = true
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://registry.emerald.localhost/v2/", nil)
		if err != nil {
			return err
		}
		resp, err := browser.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		// It wants a password, so it was the registry that answered.
		if resp.StatusCode != http.StatusUnauthorized {
			return fmt.Errorf("%s", resp.Status)
		}
		return nil
	}
}
