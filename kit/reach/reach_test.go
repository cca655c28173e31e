package reach

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// listen answers connections to an address of the loopback with a word, and
// returns the port.
func listen(t *testing.T, address, word string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, word)
			conn.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func TestDial(t *testing.T) {
	port := listen(t, "127.0.0.1:0", "here")
	listen(t, "127.0.0.2:"+port, "gateway")
	listen(t, "127.0.0.3:"+port, "inside")
	gatewayAt := func(ingress, cluster string) *corev1.Service {
		svc := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: gatewayNamespace, Name: gatewayService},
			Spec:       corev1.ServiceSpec{ClusterIP: cluster},
		}
		if ingress != "" {
			svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{Hostname: "x"}, {IP: ingress}}
		}
		return svc
	}
	for name, tc := range map[string]struct {
		gateway *corev1.Service
		host    string
		want    string
	}{
		"the gateway's address":              {gatewayAt("127.0.0.2", ""), "a.emerald.localhost", "gateway"},
		"one that does not answer":           {gatewayAt("127.0.0.9", ""), "a.emerald.localhost", "here"},
		"no gateway the caller may see":      {nil, "emerald.localhost", "here"},
		"a gateway without an address":       {gatewayAt("", "None"), "emerald.localhost", "here"},
		"a name that resolves":               {nil, "127.0.0.1", "here"},
		"from a pod, where no name resolves": {gatewayAt("", "127.0.0.3"), "127.0.0.8", "inside"},
	} {
		t.Run(name, func(t *testing.T) {
			set := fake.NewClientset()
			if tc.gateway != nil {
				set = fake.NewClientset(tc.gateway)
			}
			conn, err := (&Route{kube: set}).Dial(context.Background(), "tcp", net.JoinHostPort(tc.host, port))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got, err := io.ReadAll(conn); err != nil || string(got) != tc.want {
				t.Errorf("reached %q, %v; want %q", got, err, tc.want)
			}
		})
	}
	_, err := (&Route{kube: fake.NewClientset(gatewayAt("127.0.0.9", ""))}).Dial(context.Background(), "tcp", "127.0.0.8:"+port)
	if err == nil || !strings.Contains(err.Error(), "127.0.0.9") || !strings.Contains(err.Error(), "127.0.0.8") {
		t.Errorf("the error does not name what was tried: %v", err)
	}
	if _, err := (&Route{kube: fake.NewClientset()}).Dial(context.Background(), "tcp", "no port"); err == nil {
		t.Error("an address without a port is dialled")
	}
}
