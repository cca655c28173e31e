package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/net/http/httpproxy"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/emerald-platform/emerald/battery"
)

// hostConfigMap is where the machine tells how it reaches the outside: its
// certificate authorities and proxies.
const hostConfigMap = "host"

// rereadAfter is how long what the machine told is believed.
const rereadAfter = time.Minute

// surroundings makes the way to other registries, by what the machine tells. Its
// method may be called from any goroutine.
type surroundings struct {
	hosts coreclient.ConfigMapInterface
	log   *slog.Logger

	mu        sync.Mutex
	readAt    time.Time
	told      map[string]string
	transport *http.Transport
}

func newSurroundings(kube *rest.Config, log *slog.Logger) (*surroundings, error) {
	kube = rest.CopyConfig(kube)
	kube.Timeout = 5 * time.Second
	core, err := coreclient.NewForConfig(kube)
	if err != nil {
		return nil, fmt.Errorf("make a client for the host's settings: %w", err)
	}
	return &surroundings{hosts: core.ConfigMaps(battery.SystemNamespace), log: log}, nil
}

// roundTripper returns the way to other registries. It is the same value for as
// long as the machine tells the same.
func (s *surroundings) roundTripper(ctx context.Context) http.RoundTripper {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.transport != nil && time.Since(s.readAt) < rereadAfter {
		return s.transport
	}
	host, err := s.hosts.Get(ctx, hostConfigMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		host, err = &corev1.ConfigMap{}, nil // on a cluster that Emerald did not boot
	}
	if err != nil {
		s.log.Warn("read how the machine reaches the outside", "err", err)
		host = &corev1.ConfigMap{Data: s.told}
	}
	s.readAt = time.Now()
	if s.transport == nil || !maps.Equal(s.told, host.Data) {
		if s.transport != nil {
			s.transport.CloseIdleConnections()
		}
		s.told, s.transport = host.Data, outward(host.Data)
	}
	return s.transport
}

// outward makes a transport from what the machine told.
func outward(told map[string]string) *http.Transport {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	roots.AppendCertsFromPEM([]byte(told["ca.crt"]))
	proxies := (&httpproxy.Config{
		HTTPProxy: told["http_proxy"], HTTPSProxy: told["https_proxy"], NoProxy: told["no_proxy"],
	}).ProxyFunc()
	return &http.Transport{
		Proxy:                 func(r *http.Request) (*url.URL, error) { return proxies(r.URL) },
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 20 * time.Second,
		IdleConnTimeout:       time.Minute,
		MaxIdleConnsPerHost:   8,
		ForceAttemptHTTP2:     true,
	}
}
