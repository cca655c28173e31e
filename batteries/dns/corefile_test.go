package dns

import (
	"testing"

	"github.com/emerald-platform/emerald/battery/batterytest"
)

func TestCorefile(t *testing.T) {
	full := Config{
		StubDomains:  map[string][]string{"corp.example": {"192.0.2.2", "192.0.2.3:5353"}, "b.example": {"tls://192.0.2.4%dns.b.example"}},
		Hosts:        map[string][]string{"nas.home": {"192.0.2.9", "2001:db8::9"}, "printer.home": {"192.0.2.8"}},
		CacheSeconds: 60, TTLSeconds: 30, Pods: PodsVerified,
	}
	for name, tc := range map[string]struct {
		config Config
		place  place
		blocks int
	}{
		"default": {config: Battery.Config.(Config), place: place{upstreams: []string{"192.0.2.1"}}, blocks: 1},
		"offline": {config: Battery.Config.(Config), blocks: 1},
		"uncached": {
			config: Config{Pods: PodsDisabled},
			place:  place{upstreams: []string{"192.0.2.1"}}, blocks: 1,
		},
		"full": {config: full, place: place{upstreams: []string{"192.0.2.1", "2001:db8::1"}}, blocks: 3},
	} {
		t.Run(name, func(t *testing.T) {
			tc.place.port, tc.place.metrics, tc.place.kubeconfig = serverPort, metricsAddress, "/tmp/kubeconfig"
			got := corefile(batterytest.Site(&Battery), tc.config, tc.place)
			parses(t, got, tc.blocks)
			batterytest.Golden(t, "testdata/"+name+".corefile", got)
		})
	}
}
