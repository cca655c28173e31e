package dns

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/emerald-platform/emerald/battery"
)

// check returns every defect of the user's settings at once, nil when there is
// none. What passes it can be written into a Corefile as it is.
func check(s battery.Site, c Config) error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if under(s.ClusterDomain, s.Domain) || under(s.Domain, s.ClusterDomain) {
		add("the platform's domain %q and the cluster's domain %q must not contain each other: choose another domain",
			s.Domain, s.ClusterDomain)
	}
	errs = append(errs, checkUpstreams("upstreams", c.Upstreams)...)
	for _, domain := range slices.Sorted(maps.Keys(c.StubDomains)) {
		servers := c.StubDomains[domain]
		field := fmt.Sprintf("stubDomains[%q]", domain)
		if msgs := validation.IsDNS1123Subdomain(domain); len(msgs) > 0 {
			add("%s: not a domain: %s", field, msgs[0])
		}
		for _, own := range []string{s.ClusterDomain, s.Domain} {
			if under(own, domain) {
				add("%s: would hide the names under %q, which this server answers itself", field, own)
			}
		}
		if len(servers) == 0 {
			add("%s: names no resolver", field)
		}
		errs = append(errs, checkUpstreams(field, servers)...)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Hosts)) {
		field := fmt.Sprintf("hosts[%q]", name)
		if msgs := validation.IsDNS1123Subdomain(name); len(msgs) > 0 {
			add("%s: not a host name: %s", field, msgs[0])
		}
		for _, own := range []string{s.ClusterDomain, s.Domain} {
			if under(name, own) {
				add("%s: lies under %q, whose names this server answers itself", field, own)
			}
		}
		if len(c.Hosts[name]) == 0 {
			add("%s: names no address", field)
		}
		for _, a := range c.Hosts[name] {
			if _, err := netip.ParseAddr(a); err != nil {
				add("%s: %q is not an IP address", field, a)
			}
		}
	}
	if c.CacheSeconds < 0 || c.CacheSeconds > 3600 {
		add("cacheSeconds: %d is outside 0 to 3600", c.CacheSeconds)
	}
	if c.TTLSeconds < 0 || c.TTLSeconds > 3600 {
		add("ttlSeconds: %d is outside 0 to 3600", c.TTLSeconds)
	}
	if !slices.Contains([]PodNames{PodsDisabled, PodsInsecure, PodsVerified}, c.Pods) {
		add("pods: %q is none of %q, %q, %q", c.Pods, PodsDisabled, PodsInsecure, PodsVerified)
	}
	return errors.Join(errs...)
}

func checkUpstreams(field string, servers []string) []error {
	var errs []error
	if len(servers) > maxUpstreams {
		errs = append(errs, fmt.Errorf("%s: names %d resolvers, %d at most are used", field, len(servers), maxUpstreams))
	}
	for _, u := range servers {
		if err := checkUpstream(u); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", field, err))
		}
	}
	return errs
}

// under tells whether name is domain or lies below it.
func under(name, domain string) bool {
	return name == domain || strings.HasSuffix(name, "."+domain)
}
