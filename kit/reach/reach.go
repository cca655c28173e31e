// Package reach is how programs outside the cluster (commands, proofs) get to
// names under the platform's domain, whether or not the machine they run on can
// resolve those, and trust what answers there.
//
// It promises to trust nobody but the platform's own certificate authority and
// the system's. It refuses plain HTTP: whoever wants that dials by itself with
// [Route.Dial].
package reach

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// TrustBundle is the ClusterTrustBundle that publishes the certificates of the
// platform's certificate authority.
const TrustBundle = "emerald-ca"

// The Service by which the platform's gateway is reached.
const (
	gatewayNamespace = "emerald-gateway"
	gatewayService   = "gateway"
)

// Route is the way to the platform of one cluster. It may be used from any
// goroutine.
type Route struct {
	// Roots are the authorities that the platform's certificates are checked
	// by. Never nil.
	Roots *x509.CertPool

	kube kubernetes.Interface

	mu      sync.Mutex
	gateway *gateway // asked for once
}

// gateway is where the platform's gateway is reached.
type gateway struct {
	outside []string // from anywhere
	inside  string   // from the cluster's own machines and pods, or ""
}

// New returns the way to the platform that kube reaches. Callers without the
// right to read the trust bundle trust the system's authorities alone.
func New(ctx context.Context, kube *rest.Config) (*Route, error) {
	client, err := kubernetes.NewForConfig(kube)
	if err != nil {
		return nil, fmt.Errorf("make a client of the cluster: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	bundle, err := client.CertificatesV1().ClusterTrustBundles().Get(ctx, TrustBundle, metav1.GetOptions{})
	switch {
	case err == nil:
		roots.AppendCertsFromPEM([]byte(bundle.Spec.TrustBundle))
	case !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err):
		return nil, fmt.Errorf("read the platform's certificate authority: %w", err)
	}
	return &Route{Roots: roots, kube: client}, nil
}

// Transport returns a new transport that dials with [Route.Dial] and checks
// certificates by Roots.
func (r *Route) Transport() *http.Transport {
	return &http.Transport{
		DialContext:           r.Dial,
		TLSClientConfig:       &tls.Config{RootCAs: r.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 10 * time.Minute, // some answers take work first
		IdleConnTimeout:       30 * time.Second,
		ForceAttemptHTTP2:     true,
	}
}

// Dial connects to a name under the platform's domain: at the addresses of the
// gateway as far as the caller may know them, else on this machine for names
// that end in .localhost (RFC 6761, section 6.3) or where other names resolve to,
// else at the gateway's address inside the cluster. The error names every
// address that was tried.
func (r *Route) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial %q: %w", address, err)
	}
	g := r.find(ctx)
	hosts := append([]string{}, g.outside...)
	if strings.HasSuffix("."+host, ".localhost") {
		hosts = append(hosts, "127.0.0.1")
	} else {
		hosts = append(hosts, host)
	}
	if g.inside != "" {
		hosts = append(hosts, g.inside)
	}
	var errs []error
	for _, h := range hosts {
		// A packet that nobody answers must not use up the caller's patience.
		d := net.Dialer{Timeout: 3 * time.Second}
		conn, err := d.DialContext(ctx, network, net.JoinHostPort(h, port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("reach %s: %w", address, errors.Join(errs...))
}

// find returns where the gateway is reached, as far as the caller may know.
func (r *Route) find(ctx context.Context) gateway {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gateway != nil {
		return *r.gateway
	}
	svc, err := r.kube.CoreV1().Services(gatewayNamespace).Get(ctx, gatewayService, metav1.GetOptions{})
	if err != nil {
		return gateway{}
	}
	r.gateway = &gateway{}
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		if ingress.IP != "" {
			r.gateway.outside = append(r.gateway.outside, ingress.IP)
		}
	}
	if svc.Spec.ClusterIP != "None" {
		r.gateway.inside = svc.Spec.ClusterIP
	}
	return *r.gateway
}
