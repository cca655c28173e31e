package build

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"golang.org/x/net/http/httpproxy"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/emerald-platform/emerald/batteries/build/bases"
	"github.com/emerald-platform/emerald/batteries/build/client"
	"github.com/emerald-platform/emerald/batteries/build/daemon"
	"github.com/emerald-platform/emerald/battery"
)

// systemCA is the bundle in the platform's own image, which is the machine's.
const systemCA = "/etc/ssl/certs/ca-certificates.crt"

// machine knows what the machine's administrator configured: certificate
// authorities, proxies and package sources, now and whenever they change. It is
// safe for concurrent use.
type machine struct {
	site     battery.Site
	informer cache.SharedIndexInformer
	store    cache.Store
	fallback []byte // the CA bundle when the machine tells none
}

// watchMachine starts to watch until ctx ends. What it returns has the present
// settings already.
func watchMachine(ctx context.Context, site battery.Site) (*machine, error) {
	api, err := kubernetes.NewForConfig(rest.CopyConfig(site.Kube))
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(api, 0,
		informers.WithNamespace(battery.SystemNamespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, hostSettings).String()
		}))
	informer := factory.Core().V1().ConfigMaps().Informer()
	m := &machine{site: site, informer: informer, store: informer.GetStore()}
	if m.fallback, err = os.ReadFile(systemCA); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("read the certificate authorities: %w", err)
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return nil, fmt.Errorf("read the machine's settings: %w", context.Cause(ctx))
	}
	return m, nil
}

// get returns one setting, "" when the machine tells none.
func (m *machine) get(key string) string {
	o, ok, err := m.store.GetByKey(battery.SystemNamespace + "/" + hostSettings)
	if err != nil || !ok {
		return ""
	}
	return strings.TrimSpace(o.(*corev1.ConfigMap).Data[key])
}

// sources returns where packages come from.
func (m *machine) sources() bases.Sources {
	return bases.Sources{
		DebianMirror: m.get("debian_mirror"), DebianSuite: m.get("debian_suite"),
		GoProxy: m.get("goproxy"), NPMRegistry: m.get("npm_registry"),
	}
}

// surroundings returns what build steps get.
func (m *machine) surroundings() daemon.Surroundings {
	s := daemon.Surroundings{CA: []byte(m.get("ca.crt")), Env: map[string]string{}}
	if len(s.CA) == 0 {
		s.CA = m.fallback
	}
	set := func(value string, names ...string) {
		for _, name := range names {
			if value != "" {
				s.Env[name] = value
			}
		}
	}
	proxy := m.proxy()
	set(proxy.HTTPProxy, "http_proxy", "HTTP_PROXY")
	set(proxy.HTTPSProxy, "https_proxy", "HTTPS_PROXY")
	if proxy.HTTPProxy+proxy.HTTPSProxy != "" {
		set(proxy.NoProxy, "no_proxy", "NO_PROXY")
	}
	set(m.get("goproxy"), "GOPROXY")
	set(m.get("npm_registry"), "NPM_CONFIG_REGISTRY")
	return s
}

// proxy returns the machine's proxies; what is in the cluster is reached
// without them.
func (m *machine) proxy() httpproxy.Config {
	direct := []string{"localhost", "127.0.0.1", "::1", ".svc", "." + m.site.ClusterDomain, m.site.Domain, "." + m.site.Domain, m.site.RegistryAddress}
	if v := m.get("no_proxy"); v != "" {
		direct = append([]string{v}, direct...)
	}
	return httpproxy.Config{HTTPProxy: m.get("http_proxy"), HTTPSProxy: m.get("https_proxy"), NoProxy: strings.Join(direct, ",")}
}

// proxyFor implements http.Transport.Proxy with the present proxies.
func (m *machine) proxyFor(r *http.Request) (*url.URL, error) {
	proxy := m.proxy()
	return proxy.ProxyFunc()(r.URL)
}

// pushName is where in the platform's registry an image of another registry is
// kept.
func (m *machine) pushName(ref string) string { return client.Registry(m.site.Domain) + "/" + ref }
