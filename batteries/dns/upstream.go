package dns

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// maxNameservers is how many nameserver lines of a resolv.conf count (MAXNS of
// resolver(3)).
const maxNameservers = 3

// maxUpstreams is how many resolvers the forwarder takes for one zone.
const maxUpstreams = 15

// checkUpstream returns an error unless s is a resolver that the user may name:
// an address, an address with a port, or tls://address[:port][%name]. Host names
// are refused: resolving one needs a resolver.
func checkUpstream(s string) error {
	rest, secure := strings.CutPrefix(s, "tls://")
	if secure {
		var name string
		var named bool
		if rest, name, named = strings.Cut(rest, "%"); named {
			if errs := validation.IsDNS1123Subdomain(name); len(errs) > 0 {
				return fmt.Errorf("resolver %q: server name %q: %s", s, name, errs[0])
			}
		}
	}
	addr, err := upstreamAddr(rest)
	if err != nil {
		return fmt.Errorf("resolver %q: want an IP address, \"IP:port\" or \"tls://IP%%name\"", s)
	}
	if !reachable(addr) {
		return fmt.Errorf("resolver %q: a pod cannot reach that address: name one outside the machine", s)
	}
	return nil
}

// upstreamAddr returns the address of "IP" or "IP:port".
func upstreamAddr(s string) (netip.Addr, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr, nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("read resolver %q: %w", s, err)
	}
	return ap.Addr(), nil
}

// reachable tells whether an address means the same resolver inside a pod as on
// its machine: loopback is the pod itself, a zone names the machine's interface.
func reachable(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.IsLoopback() && !a.IsUnspecified() &&
		!a.IsMulticast() && !(a.Is6() && a.IsLinkLocalUnicast())
}

// nameservers returns the resolvers that a resolv.conf(5) names and that are
// usable, in order. Like the C library it skips what it cannot read: a broken
// line must not take down the rest.
func nameservers(resolvConf []byte, usable func(netip.Addr) bool) []string {
	var out []string
	for line := range bytes.Lines(resolvConf) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 || fields[0] != "nameserver" || len(out) == maxNameservers {
			continue
		}
		addr, err := netip.ParseAddr(fields[1])
		if err != nil || !usable(addr.Unmap()) {
			continue
		}
		if s := addr.Unmap().String(); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// others returns a test for the resolvers that a pod can reach and that are not
// among self, the addresses of the server itself. Addresses that cannot be read
// are ignored.
func others(self ...string) func(netip.Addr) bool {
	var own []netip.Addr
	for _, s := range self {
		if a, err := netip.ParseAddr(s); err == nil {
			own = append(own, a)
		}
	}
	return func(a netip.Addr) bool { return reachable(a) && !slices.Contains(own, a) }
}
