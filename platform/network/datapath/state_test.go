package datapath

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func TestNext(t *testing.T) {
	addr := netip.MustParseAddr
	used := func(list ...string) map[netip.Addr]bool {
		out := map[netip.Addr]bool{}
		for _, a := range list {
			out[addr(a)] = true
		}
		return out
	}
	tests := map[string]struct {
		reason string
		prefix string
		last   string
		used   map[netip.Addr]bool
		want   string // "" for none
	}{
		"First":        {"the first two addresses are kept free", "10.0.0.0/29", "", nil, "10.0.0.2"},
		"After":        {"a freed address rests", "10.0.0.0/29", "10.0.0.3", nil, "10.0.0.4"},
		"Wrap":         {"after the last usable one it goes round", "10.0.0.0/29", "10.0.0.6", nil, "10.0.0.2"},
		"WrapUsed":     {"used ones are passed over, also at the end", "10.0.0.0/29", "10.0.0.4", used("10.0.0.5", "10.0.0.6", "10.0.0.2"), "10.0.0.3"},
		"SameAgain":    {"the last one may be the only free one", "10.0.0.0/29", "10.0.0.3", used("10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"), "10.0.0.3"},
		"Full":         {"all in use", "10.0.0.0/29", "10.0.0.3", used("10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"), ""},
		"TooSmall":     {"nothing left to give", "10.0.0.0/31", "", nil, ""},
		"OtherRange":   {"what was last in a former range does not count", "10.0.1.0/29", "10.0.0.3", nil, "10.0.1.2"},
		"SixFirst":     {"IPv6 has no broadcast", "fd00::/126", "", nil, "fd00::2"},
		"SixLast":      {"so its last address is usable", "fd00::/126", "fd00::2", nil, "fd00::3"},
		"SixWrap":      {"and it goes round, too", "fd00::/126", "fd00::3", nil, "fd00::2"},
		"EndOfNumbers": {"the end of all addresses is no trap", "255.255.255.248/29", "255.255.255.254", nil, "255.255.255.250"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var last netip.Addr
			if test.last != "" {
				last = addr(test.last)
			}
			got, ok := next(netip.MustParsePrefix(test.prefix), last, test.used)
			if (test.want == "") == ok || (ok && got.String() != test.want) {
				t.Errorf("%s: got %v %v, want %q", test.reason, got, ok, test.want)
			}
		})
	}
}

func TestStateOfAnotherBootIsVoid(t *testing.T) {
	st := store{dir: t.TempDir()}
	for name, content := range map[string]string{
		"another boot": `{"boot":"x","attachments":[{"container":"a","addresses":["10.0.0.2"]}]}`,
		"cut short":    `{"boot":"x","attachm`,
		"empty":        ``,
	} {
		if err := os.WriteFile(filepath.Join(st.dir, "state.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := st.load()
		if err != nil || len(s.Attachments) > 0 {
			t.Errorf("%s: %v %v", name, s, err)
		}
	}
}
