package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/proxy"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/upstream"
	"github.com/emerald-platform/emerald/battery"
)

// check returns every defect of the settings.
func check(c Config) error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	names := map[string]bool{listenerHTTP: true, listenerHTTPS: true, listenerHTTP + "-root": true, listenerHTTPS + "-root": true}
	for _, p := range []struct {
		name string
		port int32
	}{{"httpPort", c.HTTPPort}, {"httpsPort", c.HTTPSPort}} {
		if p.port < 1 || p.port > 65535 {
			bad("%s %d: give a port from 1 to 65535", p.name, p.port)
		}
	}
	if c.HTTPPort == c.HTTPSPort {
		bad("httpPort and httpsPort are both %d: give two ports", c.HTTPPort)
	}
	if !slices.Contains([]AccessLog{AccessOff, AccessErrors, AccessSampled, AccessAll}, c.AccessLog) {
		bad("accessLog %q: give off, errors, sampled or all", c.AccessLog)
	}
	if c.AccessLogSample < 1 {
		bad("accessLogSample %d: give 1 or more", c.AccessLogSample)
	}
	if c.ServiceType != corev1.ServiceTypeClusterIP && c.ServiceType != corev1.ServiceTypeLoadBalancer {
		bad("serviceType %q: give ClusterIP or LoadBalancer", c.ServiceType)
	}
	for _, p := range c.TrustedProxies {
		if _, err := netip.ParsePrefix(p); err != nil {
			bad("trustedProxies %q: give a network like 203.0.113.0/24", p)
		}
	}
	for _, l := range c.Listeners {
		if names[l.Name] || len(validation.IsDNS1123Label(l.Name)) > 0 {
			bad("listeners: name %q: give a DNS label that no other listener has", l.Name)
		}
		names[l.Name] = true
		if l.Port < 1 || l.Port > 65535 {
			bad("listeners: port %d of %q: give a port from 1 to 65535", l.Port, l.Name)
		}
		if l.Protocol != "HTTP" && l.Protocol != "HTTPS" {
			bad("listeners: protocol %q of %q: give HTTP or HTTPS", l.Protocol, l.Name)
		}
	}
	l := c.Limits
	for _, n := range []struct {
		name            string
		value, from, to int64
	}{
		{"headBytes", int64(l.HeadBytes), 4 << 10, 1 << 20}, {"bodyBytes", l.BodyBytes, 0, 1 << 50}, {"headSeconds", int64(l.HeadSeconds), 1, 3600},
		{"idleSeconds", int64(l.IdleSeconds), 1, 86400}, {"stallSeconds", int64(l.StallSeconds), 1, 86400}, {"connectSeconds", int64(l.ConnectSeconds), 1, 600},
		{"backendSeconds", int64(l.BackendSeconds), 1, 86400}, {"attempts", int64(l.Attempts), 1, 10},
	} {
		if n.value < n.from || n.value > n.to {
			bad("limits.%s %d: give a number from %d to %d", n.name, n.value, n.from, n.to)
		}
	}
	if len(problems) > 0 {
		return fmt.Errorf("settings of battery \"gateway\": %w", errors.Join(problems...))
	}
	return nil
}

// How the gateway leaves: see [proxy.Options].
const (
	// drainDelay is the time the machines need to stop sending new connections
	// to a pod that is not alone.
	drainDelay = 5 * time.Second
	// drainQuiet and drainMax bound the wait for a successor of one that is.
	drainQuiet = time.Second
	drainMax   = 20 * time.Second
	// drainTimeout is the time that requests under way have after that.
	drainTimeout = 40 * time.Second
	// gracePeriod is what Kubernetes grants a pod; drainMax and drainTimeout
	// fit.
	gracePeriod = 70 * time.Second
)

// options returns the data plane's options. The settings must have passed
// check.
func options(s battery.Site, c Config, m *proxy.Metrics) proxy.Options {
	seconds := func(n int32) time.Duration { return time.Duration(n) * time.Second }
	l := c.Limits
	opts := proxy.Options{
		Log: s.Log, Metrics: m,
		Upstream: upstream.Options{ConnectTimeout: seconds(l.ConnectSeconds), IdleTimeout: 50 * time.Second, MaxIdle: 256},
		MaxHead:  int(l.HeadBytes), MaxBody: l.BodyBytes, HeadTimeout: seconds(l.HeadSeconds), IdleTimeout: seconds(l.IdleSeconds),
		StallTimeout: seconds(l.StallSeconds), BackendTimeout: seconds(l.BackendSeconds), Attempts: int(l.Attempts),
		DrainDelay: drainDelay, DrainQuiet: drainQuiet, DrainMax: drainMax, DrainTimeout: drainTimeout,
	}
	if l.BodyBytes == 0 {
		opts.MaxBody = -1
	}
	for _, p := range c.TrustedProxies {
		if prefix, err := netip.ParsePrefix(p); err == nil {
			opts.Trusted = append(opts.Trusted, prefix)
		}
	}
	modes := map[AccessLog]proxy.AccessMode{AccessErrors: proxy.AccessErrors, AccessSampled: proxy.AccessSampled, AccessAll: proxy.AccessAll}
	if mode, ok := modes[c.AccessLog]; ok {
		opts.AccessLog = proxy.NewAccessLog(mode, uint32(c.AccessLogSample), os.Stdout)
	}
	return opts
}
