package datapath

import (
	"bytes"
	"net/netip"
	"os"
	"slices"
	"testing"
)

// FuzzState gives the datapath any file as its state: it begins anew, or hands
// out addresses of the ranges that nobody in that state has.
func FuzzState(f *testing.F) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		f.Skip(err)
	}
	boot := string(bytes.TrimSpace(raw))
	f.Add(`{"boot":"`+boot+`","last":{"10.42.0.0/24":"10.42.0.254"},"attachments":[{"container":"a","interface":"eth0","addresses":["10.42.0.2"]}]}`, "10.42.0.0/24", "fd00::/120")
	f.Add(`{"boot":"`+boot+`","last":{"10.42.0.0/30":"::1"},"attachments":[{"addresses":["",null]}]}`, "10.42.0.0/30", "255.255.255.252/30")
	f.Add("null", "0.0.0.0/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120")
	f.Fuzz(func(t *testing.T, content, one, two string) {
		st := store{dir: t.TempDir()}
		if err := os.WriteFile(st.path(), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := st.load()
		if err != nil || s.Boot != boot {
			t.Fatalf("load = %+v, %v", s, err)
		}
		var ranges []netip.Prefix
		for _, text := range []string{one, two} {
			// What the node's controller gives is never larger than this.
			if r, err := netip.ParsePrefix(text); err == nil && r.Addr().BitLen()-r.Bits() <= 16 {
				ranges = append(ranges, r)
			}
		}
		addresses, err := s.allocate(ranges)
		if err != nil {
			return
		}
		for i, a := range addresses {
			if !ranges[i].Contains(a) {
				t.Errorf("%s is not in %s", a, ranges[i])
			}
			for _, other := range s.Attachments {
				if slices.Contains(other.Addresses, a) {
					t.Errorf("%s belongs to container %q", a, other.Container)
				}
			}
		}
		if err := st.save(s); err != nil {
			t.Fatal(err)
		}
		again, err := st.load()
		if err != nil || len(again.Attachments) != len(s.Attachments) {
			t.Errorf("what was saved is %+v, %v when it is read again, want %+v", again, err, s)
		}
	})
}
