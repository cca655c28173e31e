package battery_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/emerald-platform/emerald/battery"
)

func TestDecodeConfig(t *testing.T) {
	defaults := knobs{Servers: 2, TLS: &tls{Labels: map[string]string{"a": "b"}, Versions: []version{{Name: "1.2", Old: true}, {Name: "1.3"}}}}
	for name, tc := range map[string]struct {
		settings string
		want     knobs
		err      string
	}{
		"nothing":   {want: defaults},
		"null":      {settings: " null ", want: defaults},
		"no fields": {settings: "{}", want: defaults},
		"a scalar replaces": {
			settings: `{"servers": 5, "level": "high"}`,
			want:     knobs{Servers: 5, TLS: defaults.TLS, Shared: Shared{Level: "high"}},
		},
		"an object merges": {
			settings: `{"tls": {"labels": {"c": "d"}}}`,
			want:     knobs{Servers: 2, TLS: &tls{Labels: map[string]string{"a": "b", "c": "d"}, Versions: defaults.TLS.Versions}},
		},
		"a list replaces and forgets its old elements": {
			settings: `{"tls": {"versions": [{"name": "1.4"}]}}`,
			want:     knobs{Servers: 2, TLS: &tls{Labels: map[string]string{"a": "b"}, Versions: []version{{Name: "1.4"}}}},
		},
		"null keeps the default": {
			settings: `{"servers": null, "tls": {"labels": null}}`,
			want:     defaults,
		},
		"all unknown fields at once": {
			settings: `{"server": 1, "Level": "x", "tls": {"versions": [{"nmae": "1"}]}}`,
			err: `settings of battery "dns": unknown field "server": there are level, servers, tls, zones` + "\n" +
				`unknown field "Level": there are level, servers, tls, zones` + "\n" +
				`unknown field "tls.versions[0].nmae": there are name, old`,
		},
		"twice": {
			settings: `{"servers": 1, "servers": 2}`,
			err:      `settings of battery "dns": duplicate field "servers"`,
		},
		"wrong type": {
			settings: `{"servers": "two"}`,
			err:      `settings of battery "dns": field "servers" is a JSON string where a whole number is needed`,
		},
		"wrong type inside": {
			settings: `{"tls": {"versions": 1}}`,
			err:      `settings of battery "dns": field "tls.versions" is a JSON number where a list is needed`,
		},
		"no object": {
			settings: `[1]`,
			err:      `settings of battery "dns": is a JSON array where an object is needed`,
		},
		"no JSON": {
			settings: `{"servers": `,
			err:      `settings of battery "dns": read as JSON: unexpected end of JSON input`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := sound("dns", func(b *battery.Battery) { b.Config = defaults })
			before, _ := json.Marshal(b.Config)
			got, err := battery.DecodeConfig(&b, []byte(tc.settings))
			if after, _ := json.Marshal(b.Config); string(before) != string(after) {
				t.Errorf("the defaults changed from %s to %s", before, after)
			}
			if tc.err != "" {
				if err == nil || err.Error() != tc.err {
					t.Errorf("error\n%v\nwant\n%v", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, cmpopts.IgnoreUnexported(knobs{})); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeConfigSharesNothing(t *testing.T) {
	b := sound("dns")
	got, err := battery.DecodeConfig(&b, nil)
	if err != nil {
		t.Fatal(err)
	}
	got.(knobs).TLS.Labels["a"] = "changed"
	if b.Config.(knobs).TLS.Labels["a"] != "b" {
		t.Error("the defaults share a map with the decoded settings")
	}
}

func TestDecodeConfigWithoutKnobs(t *testing.T) {
	b := sound("dns", func(b *battery.Battery) { b.Config = nil })
	if got, err := battery.DecodeConfig(&b, []byte("{}")); got != nil || err != nil {
		t.Errorf("no settings = %v, %v; want nil, nil", got, err)
	}
	if _, err := battery.DecodeConfig(&b, []byte(`{"a": 1}`)); err == nil {
		t.Error("settings of a battery without knobs are accepted")
	}
}

// FuzzDecodeConfig shows that whatever a Platform object holds is decoded or
// refused, and that what was decoded is stable.
func FuzzDecodeConfig(f *testing.F) {
	f.Add([]byte(`{"servers": 3, "tls": {"versions": [{"name": "1.3"}], "labels": {"x": null}}}`))
	f.Add([]byte(`{"tls": null, "zones": ["a"], "hidden": 1}`))
	f.Fuzz(func(t *testing.T, settings []byte) {
		b := sound("dns")
		got, err := battery.DecodeConfig(&b, settings)
		if err != nil {
			return
		}
		raw, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		again, err := battery.DecodeConfig(&b, raw)
		if err != nil {
			t.Fatalf("%s was accepted, but what it decodes to is refused: %v", settings, err)
		}
		if diff := cmp.Diff(got, again, cmpopts.IgnoreUnexported(knobs{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("decoding again gives another value:\n%s", diff)
		}
	})
}
