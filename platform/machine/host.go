package machine

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/platform/node"
)

// caBundles are where the distributions keep the authorities a host trusts.
var caBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Alpine, Arch
	"/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, RHEL
	"/etc/ssl/ca-bundle.pem",             // openSUSE
	"/etc/ssl/cert.pem",
}

// HostCABundle returns the PEM bundle of the authorities the host trusts, nil
// when it has none.
func HostCABundle() []byte {
	paths := caBundles
	if named := os.Getenv("SSL_CERT_FILE"); named != "" {
		paths = append([]string{named}, paths...)
	}
	for _, path := range paths {
		if raw, err := os.ReadFile(path); err == nil && len(raw) > 0 {
			return raw
		}
	}
	return nil
}

// hostSettings collects what the host's administrator has configured and what
// pods that reach outside must honour: the authorities it trusts, its proxies,
// resolvers and package mirrors. What the host does not have is left out.
func hostSettings() map[string]string {
	out := map[string]string{}
	put := func(key, value string) {
		if value != "" {
			out[key] = value
		}
	}
	put("ca.crt", string(HostCABundle()))
	put("resolv.conf", node.Resolvers())
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy", "goproxy", "npm_config_registry"} {
		value := os.Getenv(name)
		if value == "" {
			value = os.Getenv(strings.ToUpper(name))
		}
		put(strings.Replace(name, "npm_config_registry", "npm_registry", 1), value)
	}
	mirror, suite := debianMirror("/etc/apt")
	put("debian_mirror", mirror)
	put("debian_suite", suite)
	if out["npm_registry"] == "" {
		put("npm_registry", iniValue(filepath.Join(os.Getenv("HOME"), ".npmrc"), "registry"))
	}
	if out["goproxy"] == "" {
		put("goproxy", iniValue(filepath.Join(os.Getenv("HOME"), ".config/go/env"), "GOPROXY"))
	}
	return out
}

func readFile(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(raw)
}

// iniValue returns the value of "key=value" in a file, "" when there is none.
func iniValue(path, key string) string {
	for line := range strings.Lines(readFile(path)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// debianMirror returns the first Debian archive and its suite that apt's
// sources in dir name, in either of the formats of sources.list(5).
func debianMirror(dir string) (mirror, suite string) {
	files, _ := filepath.Glob(filepath.Join(dir, "sources.list.d", "*"))
	for _, path := range append([]string{filepath.Join(dir, "sources.list")}, files...) {
		var uri, suites string
		scanner := bufio.NewScanner(strings.NewReader(readFile(path)))
		for scanner.Scan() {
			line := strings.TrimSpace(scanner.Text())
			if fields := strings.Fields(line); len(fields) >= 4 && fields[0] == "deb" {
				fields = dropOptions(fields[1:])
				if len(fields) >= 2 && isDebian(fields[0]) {
					return strings.TrimSuffix(fields[0], "/"), fields[1]
				}
			}
			if v, ok := strings.CutPrefix(line, "URIs:"); ok && uri == "" {
				uri = strings.TrimSpace(v)
			}
			if v, ok := strings.CutPrefix(line, "Suites:"); ok && suites == "" {
				suites = strings.TrimSpace(v)
			}
		}
		if uri != "" && suites != "" && isDebian(uri) {
			return strings.TrimSuffix(strings.Fields(uri)[0], "/"), strings.Fields(suites)[0]
		}
	}
	return "", ""
}

// dropOptions removes "[arch=amd64 …]" before the address.
func dropOptions(fields []string) []string {
	if len(fields) == 0 || !strings.HasPrefix(fields[0], "[") {
		return fields
	}
	for i, f := range fields {
		if strings.HasSuffix(f, "]") {
			return fields[i+1:]
		}
	}
	return nil
}

// isDebian tells a Debian archive from security updates and third parties.
func isDebian(uri string) bool {
	return strings.Contains(strings.TrimSuffix(uri, "/")+"/", "/debian/")
}

// hostInterval is how often the host's settings are read again.
const hostInterval = 30 * time.Second

// publishHost keeps the settings in the ConfigMap "host" of the system
// namespace, which it makes when needed, until ctx ends. It calls published
// when they are there for the first time.
func publishHost(ctx context.Context, client kubernetes.Interface, log *slog.Logger, published func()) error {
	apply := metav1.ApplyOptions{FieldManager: battery.Owner + "-machine", Force: true}
	if _, err := client.CoreV1().Namespaces().Apply(ctx, corev1ac.Namespace(battery.SystemNamespace), apply); err != nil {
		return fmt.Errorf("make namespace %q: %w", battery.SystemNamespace, err)
	}
	var last map[string]string
	tick := time.NewTicker(hostInterval)
	defer tick.Stop()
	for {
		if now := hostSettings(); !maps.Equal(now, last) {
			settings := corev1ac.ConfigMap("host", battery.SystemNamespace).WithData(now)
			_, err := client.CoreV1().ConfigMaps(battery.SystemNamespace).Apply(ctx, settings, apply)
			switch {
			case err == nil && last == nil:
				last = now
				published()
			case err == nil:
				last = now
			case last == nil:
				return fmt.Errorf("publish the host's settings: %w", err)
			default:
				log.Warn("publish the host's settings", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
