package dns

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/coredns/caddy/caddyfile"
	"github.com/google/go-cmp/cmp"

	"github.com/emerald-platform/emerald/battery/batterytest"
)

func TestNameservers(t *testing.T) {
	for name, tc := range map[string]struct {
		reason, file string
		want         []string
	}{
		"plain": {
			reason: "comments and other options are skipped",
			file:   "# made by dhcp\nsearch corp.example\nnameserver 192.0.2.1\nnameserver\t2001:db8::1 # second\noptions ndots:2\n",
			want:   []string{"192.0.2.1", "2001:db8::1"},
		},
		"local stub": {
			reason: "a stub on the machine's loopback is not there in a pod",
			file:   "nameserver 127.0.0.53\nnameserver ::1\nnameserver 0.0.0.0\n",
		},
		"itself": {
			reason: "asking itself would go round in circles",
			file:   "nameserver 10.43.0.10\nnameserver ::ffff:10.43.0.10\nnameserver 192.0.2.1\n",
			want:   []string{"192.0.2.1"},
		},
		"broken": {
			reason: "the rest of a broken file still counts",
			file:   "nameserver\nnameserver dns.example\nnameserver 192.0.2.1:53\nnameserver fe80::1%eth0\nnameservers 192.0.2.7\nnameserver 192.0.2.1",
			want:   []string{"192.0.2.1"},
		},
		"more than count": {
			reason: "three at most, each once, as in the C library",
			file:   "nameserver 192.0.2.1\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n",
			want:   []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"},
		},
		"empty": {reason: "a machine without a network"},
	} {
		t.Run(name, func(t *testing.T) {
			got := nameservers([]byte(tc.file), others("10.43.0.10", ""))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// FuzzNameservers feeds any file a machine may have and demands resolvers that
// a pod can reach and that keep the Corefile whole.
func FuzzNameservers(f *testing.F) {
	f.Add([]byte("nameserver 192.0.2.1\nnameserver 127.0.0.53\noptions edns0"))
	f.Add([]byte("nameserver ::ffff:10.43.0.10\r\nnameserver fe80::1%eth0"))
	f.Add([]byte("nameserver {$HOME}\nnameserver }\x00"))
	f.Fuzz(func(t *testing.T, file []byte) {
		got := nameservers(file, others("10.43.0.10"))
		if len(got) > maxNameservers {
			t.Fatalf("%d resolvers", len(got))
		}
		for _, s := range got {
			a, err := netip.ParseAddr(s)
			if err != nil || !reachable(a) || s == "10.43.0.10" {
				t.Fatalf("resolver %q", s)
			}
		}
		parses(t, corefile(batterytest.Site(&Battery), Battery.Config.(Config), place{port: 53, metrics: metricsAddress, upstreams: got}), 1)
	})
}

// FuzzCheckUpstream demands that whatever passes leaves the Corefile whole.
func FuzzCheckUpstream(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "[2001:db8::1]:53", "tls://9.9.9.9%dns.quad9.net", "1.1.1.1\n}", "tls://1.1.1.1%{$A}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if checkUpstream(s) != nil {
			return
		}
		parses(t, corefile(batterytest.Site(&Battery), Battery.Config.(Config), place{port: 53, metrics: metricsAddress, upstreams: []string{s}}), 1)
	})
}

// parses fails the test unless text is a Corefile of n blocks that uses only
// known directives.
func parses(t *testing.T, text []byte, n int) {
	t.Helper()
	blocks, err := caddyfile.Parse("Corefile", bytes.NewReader(text), directives)
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	if len(blocks) != n {
		t.Fatalf("%d blocks instead of %d in:\n%s", len(blocks), n, text)
	}
}
