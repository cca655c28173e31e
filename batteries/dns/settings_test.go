package dns

import (
	"strings"
	"testing"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/battery/batterytest"
)

func TestCheck(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		edit   func(*battery.Site, *Config)
		want   []string // parts of the error, in order; none means no error
	}{
		"defaults": {reason: "the defaults must work", edit: func(*battery.Site, *Config) {}},
		"everything": {
			reason: "each field at work",
			edit: func(_ *battery.Site, c *Config) {
				c.Upstreams = []string{"192.0.2.1", "192.0.2.1:5353", "[2001:db8::1]:53", "tls://9.9.9.9%dns.quad9.net", "tls://9.9.9.9:853"}
				c.StubDomains = map[string][]string{"corp.example": {"192.0.2.2"}}
				c.Hosts = map[string][]string{"nas.home": {"192.0.2.3", "2001:db8::3"}}
				c.CacheSeconds, c.TTLSeconds, c.Pods = 0, 3600, PodsVerified
			},
		},
		"upstreams nobody can ask": {
			reason: "a pod's loopback is not the machine's, and a name needs a resolver to find",
			edit: func(_ *battery.Site, c *Config) {
				c.Upstreams = []string{"127.0.0.53", "dns.example", "fe80::1%eth0", "tls://1.1.1.1%bad name", "1.1.1.1 }"}
			},
			want: []string{`"127.0.0.53": a pod cannot reach`, `"dns.example": want an IP`, `"fe80::1%eth0"`, `"bad name"`, `"1.1.1.1 }": want`},
		},
		"too many": {
			reason: "the forwarder takes fifteen",
			edit:   func(_ *battery.Site, c *Config) { c.Upstreams = make([]string, 16) },
			want:   []string{"names 16 resolvers, 15 at most"},
		},
		"stubs over own names": {
			reason: "a stub must not hide what the server itself answers",
			edit: func(_ *battery.Site, c *Config) {
				c.StubDomains = map[string][]string{"local": {"192.0.2.2"}, "emerald.localhost": {"192.0.2.2"}, "empty.example": nil, "{$HOME}": {"192.0.2.2"}}
			},
			want: []string{`names under "emerald.localhost"`, `["empty.example"]: names no resolver`, `names under "cluster.local"`, `["{$HOME}"]: not a domain`},
		},
		"hosts": {
			reason: "a hosts entry may not shadow a service and must be an address",
			edit: func(_ *battery.Site, c *Config) {
				c.Hosts = map[string][]string{"web.team.svc.cluster.local": {"192.0.2.1"}, "a.example": {"b.example"}, "c.example": {}, "d e": {"192.0.2.1"}}
			},
			want: []string{`"b.example" is not an IP`, `["c.example"]: names no address`, `["d e"]: not a host name`, `lies under "cluster.local"`},
		},
		"numbers and words": {
			reason: "out of range",
			edit:   func(_ *battery.Site, c *Config) { c.CacheSeconds, c.TTLSeconds, c.Pods = -1, 3601, "maybe" },
			want:   []string{"cacheSeconds: -1", "ttlSeconds: 3601", `pods: "maybe"`},
		},
		"domains that contain each other": {
			reason: "the platform's zone would swallow every service",
			edit:   func(s *battery.Site, _ *Config) { s.Domain = "local" },
			want:   []string{"must not contain each other"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			site, cfg := batterytest.Site(&Battery), Battery.Config.(Config)
			tc.edit(&site, &cfg)
			site.Config = cfg
			_, err := Battery.Manifests(site)
			if len(tc.want) == 0 {
				if err != nil {
					t.Errorf("%s: %v", tc.reason, err)
				}
				return
			}
			if err == nil {
				t.Fatalf("%s: no error", tc.reason)
			}
			rest := err.Error()
			for _, part := range tc.want {
				i := strings.Index(rest, part)
				if i < 0 {
					t.Fatalf("%s: %q is missing, or too late, in:\n%v", tc.reason, part, err)
				}
				rest = rest[i:]
			}
		})
	}
}
