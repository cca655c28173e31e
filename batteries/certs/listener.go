package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwclient "sigs.k8s.io/gateway-api/pkg/client/clientset/versioned"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/poll"
	"github.com/emerald-platform/emerald/kit/reach"
)

// The platform's gateway, where it has one.
const (
	gatewayName      = "emerald"
	gatewayNamespace = "emerald-gateway"
)

// renewal makes a certificate due ten seconds after it was issued: the shortest
// life there is, and all but ten seconds of it for the renewal.
const (
	shortLife   = time.Hour
	renewBefore = shortLife - 10*time.Second
)

// gateways returns a client of the Gateway API, nil where the platform's gateway
// does not exist.
func (s *space) gateways(ctx context.Context) (gwclient.Interface, error) {
	client, err := gwclient.NewForConfig(s.site.Kube)
	if err != nil {
		return nil, fmt.Errorf("reach the API: %w", err)
	}
	_, err = client.GatewayV1().Gateways(gatewayNamespace).Get(ctx, gatewayName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find gateway %s/%s: %w", gatewayNamespace, gatewayName, err)
	}
	return client, nil
}

// dialer connects to one server.
type dialer func(context.Context) (net.Conn, error)

// listener attaches a host of its own to the platform's gateway, as an app does,
// and returns the way there once the gateway serves it with a certificate of its
// own; nil where the platform has no gateway.
func (s *space) listener(ctx context.Context, roots *x509.CertPool) (dialer, error) {
	client, err := s.gateways(ctx)
	if err != nil || client == nil {
		return nil, err
	}
	host := gatewayv1.Hostname(s.host())
	set := &gatewayv1.ListenerSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web",
			Annotations: map[string]string{
				cmapi.IngressClusterIssuerNameAnnotationKey: AuthorityName,
				cmapi.DurationAnnotationKey:                 shortLife.String(),
				cmapi.RenewBeforeAnnotationKey:              renewBefore.String(),
			},
		},
		Spec: gatewayv1.ListenerSetSpec{
			ParentRef: gatewayv1.ParentGatewayReference{Name: gatewayName, Namespace: new(gatewayv1.Namespace(gatewayNamespace))},
			Listeners: []gatewayv1.ListenerEntry{{
				Name: "https", Hostname: &host, Port: 443, Protocol: gatewayv1.HTTPSProtocolType,
				TLS: &gatewayv1.ListenerTLSConfig{
					CertificateRefs: []gatewayv1.SecretObjectReference{{Name: "listener"}},
				},
			}},
		},
	}
	if _, err := client.GatewayV1().ListenerSets(s.name).Create(ctx, set, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("make listener set %s/web: %w", s.name, err)
	}
	if _, err := s.keyPair(ctx, "listener", patience); err != nil {
		return nil, err
	}
	route, err := reach.New(ctx, s.site.Kube)
	if err != nil {
		return nil, fmt.Errorf("find the way to the gateway: %w", err)
	}
	dial := func(ctx context.Context) (net.Conn, error) { return route.Dial(ctx, "tcp", s.host()+":443") }
	var last error
	err = poll.Until(ctx, 100*time.Millisecond, patience, func(ctx context.Context) (bool, error) {
		_, err := shakeHands(ctx, dial, s.host(), roots)
		if !poll.Over(ctx) {
			last = err
		}
		return err == nil, nil
	})
	if err != nil {
		return nil, fmt.Errorf("wait for the gateway to serve %q with its certificate: %w", s.host(), errors.Join(err, last))
	}
	return dial, nil
}

// proveRenewed lets the time of a certificate come while a server uses it: one
// of its own here, that takes the key pair from the Secret as it is at that
// moment, and the platform's gateway where there is one.
func proveRenewed(ctx context.Context, s battery.Site) error {
	return within(ctx, s, func(ctx context.Context, sp *space) error {
		roots, err := sp.bundle(ctx)
		if err != nil {
			return err
		}
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return sp.renewsHere(ctx, roots) })
		g.Go(func() error {
			dial, err := sp.listener(ctx, roots)
			if err != nil || dial == nil {
				return err
			}
			return renewsUnderLoad(ctx, dial, sp.host(), roots)
		})
		if err := g.Wait(); err != nil {
			return fmt.Errorf("%w (%s)", err, sp.progress(ctx))
		}
		return nil
	})
}

// renewsHere serves a certificate on this machine while it is renewed.
func (s *space) renewsHere(ctx context.Context, roots *x509.CertPool) error {
	c := s.certificate("web")
	c.Spec.Duration, c.Spec.RenewBefore = &metav1.Duration{Duration: shortLife}, &metav1.Duration{Duration: renewBefore}
	if err := s.request(ctx, c); err != nil {
		return err
	}
	first, err := s.keyPair(ctx, "web", patience)
	if err != nil {
		return err
	}
	var current atomic.Pointer[tls.Certificate]
	current.Store(&first)
	server, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil },
	})
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return answer(server) })
	g.Go(func() error { return s.follow(ctx, "web", &current) })
	g.Go(func() error {
		defer server.Close()
		defer stop()
		var d net.Dialer
		dial := func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", server.Addr().String()) }
		return renewsUnderLoad(ctx, dial, s.host(), roots)
	})
	return g.Wait()
}

// answer shakes hands with everybody until the listener is closed.
func answer(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept a connection: %w", err)
		}
		// One client at a time; a failure is the client's to report.
		_ = conn.(*tls.Conn).Handshake()
		conn.Close()
	}
}

// follow keeps current what the Secret holds until ctx ends. A Secret whose
// certificate and key do not belong together, even for a moment, is an error.
func (s *space) follow(ctx context.Context, secret string, current *atomic.Pointer[tls.Certificate]) error {
	w, err := s.kube.CoreV1().Secrets(s.name).Watch(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, secret).String(),
	})
	if err != nil {
		return fmt.Errorf("watch secret %s/%s: %w", s.name, secret, err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-w.ResultChan():
			if !ok {
				return nil
			}
			got, ok := event.Object.(*corev1.Secret)
			if !ok || event.Type == watch.Deleted {
				return fmt.Errorf("secret %s/%s is gone", s.name, secret)
			}
			pair, err := pairOf(got)
			if err != nil {
				return err
			}
			current.Store(&pair)
		}
	}
}

// renewsUnderLoad shakes hands with a server again and again until it shows
// another certificate than at first. Every handshake must succeed.
func renewsUnderLoad(ctx context.Context, dial dialer, host string, roots *x509.CertPool) error {
	first, err := shakeHands(ctx, dial, host, roots)
	if err != nil {
		return err
	}
	count := 0
	err = poll.Until(ctx, 20*time.Millisecond, time.Minute, func(ctx context.Context) (bool, error) {
		leaf, err := shakeHands(ctx, dial, host, roots)
		if err != nil {
			return false, fmt.Errorf("handshake %d with %q: %w", count+1, host, err)
		}
		count++
		return leaf.SerialNumber.Cmp(first.SerialNumber) != 0, nil
	})
	if err != nil {
		return fmt.Errorf("wait for another certificate for %q, %d handshakes long: %w", host, count, err)
	}
	return nil
}

// shakeHands connects, checks the certificate by the roots alone, and returns
// it.
func shakeHands(ctx context.Context, dial dialer, host string, roots *x509.CertPool) (*x509.Certificate, error) {
	conn, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("dial %q: %w", host, err)
	}
	defer conn.Close()
	t := tls.Client(conn, &tls.Config{ServerName: host, RootCAs: roots, MinVersion: tls.VersionTLS12})
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("shake hands with %q: %w", host, err)
	}
	return t.ConnectionState().PeerCertificates[0], nil
}
