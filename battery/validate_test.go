package battery_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

type knobs struct {
	Servers int      `json:"servers"`
	Zones   []string `json:"zones,omitempty"`
	TLS     *tls     `json:"tls,omitempty"`
	Shared  `json:",inline"`
	hidden  int
}

type tls struct {
	Versions []version         `json:"versions"`
	Labels   map[string]string `json:"labels"`
}

type version struct {
	Name string `json:"name"`
	Old  bool   `json:"old"`
}

type Shared struct {
	Level string `json:"level,omitempty"`
}

func run(context.Context, battery.Site) error { return nil }

func render(battery.Site) ([]kube.Object, error) { return nil, nil }

// sound returns a battery that keeps every rule, changed by the given edits.
func sound(name string, edits ...func(*battery.Battery)) battery.Battery {
	b := battery.Battery{
		Name: name, Doc: "Gives users what they asked for.", Run: run, Manifests: render,
		Config: knobs{Servers: 2, TLS: &tls{Labels: map[string]string{"a": "b"}, Versions: []version{{Name: "1.3"}}}},
		Proofs: []battery.Proof{{Feature: "DNS", Claim: "Names resolve.", Check: run}},
	}
	for _, edit := range edits {
		edit(&b)
	}
	return b
}

func needs(names ...string) func(*battery.Battery) {
	return func(b *battery.Battery) { b.Needs = names }
}

func TestValidate(t *testing.T) {
	one := func(edit func(*battery.Battery)) []battery.Battery { return []battery.Battery{sound("dns", edit)} }
	for name, tc := range map[string]struct {
		all  []battery.Battery
		want []battery.Defect
	}{
		"sound": {all: []battery.Battery{sound("dns"), sound("certs", needs("dns"))}},
		"empty": {},
		"no knobs": {
			all: one(func(b *battery.Battery) { b.Config = nil }),
		},
		"manifests alone": {
			all: one(func(b *battery.Battery) { b.Run = nil }),
		},
		"names": {
			all: []battery.Battery{sound("my-dns"), sound("go"), sound("node"), sound("dns"), sound("dns")},
			want: []battery.Defect{
				{Battery: "my-dns", Field: "Name", Problem: "must be one word of at most 40 lowercase letters and digits, a letter first"},
				{Battery: "go", Field: "Name", Problem: "is a keyword of Go and cannot name a package"},
				{Battery: "node", Field: "Name", Problem: "is reserved for the platform itself"},
				{Battery: "dns", Field: "Name", Problem: "is used twice"},
			},
		},
		"sentences": {
			all: []battery.Battery{
				sound("a", func(b *battery.Battery) { b.Doc = "" }),
				sound("b", func(b *battery.Battery) { b.Doc = "Two.\nLines." }),
				sound("c", func(b *battery.Battery) { b.Doc = "small beginning." }),
				sound("d", func(b *battery.Battery) { b.Doc = "No end" }),
				sound("e", func(b *battery.Battery) { b.Doc = "One. Two." }),
			},
			want: []battery.Defect{
				{Battery: "a", Field: "Doc", Problem: "is empty: say in one sentence what the user gets"},
				{Battery: "b", Field: "Doc", Problem: "must be one line without white space around it"},
				{Battery: "c", Field: "Doc", Problem: "must begin with a capital letter"},
				{Battery: "d", Field: "Doc", Problem: "must end with one full stop"},
				{Battery: "e", Field: "Doc", Problem: "must be one sentence"},
			},
		},
		"needs": {
			all: []battery.Battery{sound("dns"), sound("certs", needs("dns", "dns", "certs", "ghost"))},
			want: []battery.Defect{
				{Battery: "certs", Field: "Needs", Problem: `names "dns" twice`},
				{Battery: "certs", Field: "Needs", Problem: "names the battery itself"},
				{Battery: "certs", Field: "Needs", Problem: `names "ghost", which is not in the list`},
			},
		},
		"two cycles": {
			all: []battery.Battery{
				sound("c", needs("a")), sound("a", needs("b")), sound("b", needs("c")),
				sound("x", needs("y", "a")), sound("y", needs("x")),
			},
			want: []battery.Defect{
				{Battery: "a", Field: "Needs", Problem: "form a cycle: a → b → c → a"},
				{Battery: "x", Field: "Needs", Problem: "form a cycle: x → y → x"},
			},
		},
		"nothing to do": {
			all: one(func(b *battery.Battery) { b.Run, b.Manifests = nil, nil }),
			want: []battery.Defect{
				{Battery: "dns", Field: "Run", Problem: "is nil and so is Manifests: the battery does nothing"},
			},
		},
		"place": {
			all: one(func(b *battery.Battery) { b.Where = 7 }),
			want: []battery.Defect{
				{Battery: "dns", Field: "Where", Problem: "is 7: use Controllers, Own or EveryNode"},
			},
		},
		"workload without a process": {
			all: one(func(b *battery.Battery) { b.Where, b.Run = battery.Own, nil }),
			want: []battery.Defect{
				{Battery: "dns", Field: "Run", Problem: `is nil: a battery whose Where is "own" needs a process`},
			},
		},
		"config is a pointer": {
			all: one(func(b *battery.Battery) { b.Config = &knobs{} }),
			want: []battery.Defect{
				{Battery: "dns", Field: "Config", Problem: "is a *battery_test.knobs: it must be a struct value holding the defaults, or nil"},
			},
		},
		"config loses a field": {
			all: one(func(b *battery.Battery) { b.Config = knobs{hidden: 1} }),
			want: []battery.Defect{{
				Battery: "dns", Field: "Config",
				Problem: "does not survive JSON: the defaults {Servers:0 Zones:[] TLS:<nil> Shared:{Level:} hidden:1} come back as {Servers:0 Zones:[] TLS:<nil> Shared:{Level:} hidden:0}",
			}},
		},
		"proofs": {
			all: one(func(b *battery.Battery) {
				b.Proofs = []battery.Proof{{}, {Feature: "DNS", Claim: "Works.", Check: run}, {Feature: "TLS", Claim: "Works.", Check: run}}
			}),
			want: []battery.Defect{
				{Battery: "dns", Field: "Proofs[0].Feature", Problem: "is empty: name a row of the picture"},
				{Battery: "dns", Field: "Proofs[0].Claim", Problem: "is empty: say in one sentence what the user gets"},
				{Battery: "dns", Field: "Proofs[0].Check", Problem: "is nil: a claim without a check proves nothing"},
				{Battery: "dns", Field: "Proofs[2].Claim", Problem: "is used twice: results are kept by claim"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := battery.Validate(tc.all)
			var got []battery.Defect
			if joined, ok := err.(interface{ Unwrap() []error }); ok {
				for _, e := range joined.Unwrap() {
					got = append(got, e.(battery.Defect))
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("defects (-want +got):\n%s", diff)
			}
			for _, d := range tc.want {
				if !errors.Is(err, d) {
					t.Errorf("errors.Is does not find %v", d)
				}
			}
		})
	}
}

func TestOrder(t *testing.T) {
	for name, tc := range map[string]struct {
		all  []battery.Battery
		want [][]string
	}{
		"position does not matter": {
			all: []battery.Battery{
				sound("apps", needs("gateway", "certs")), sound("gateway", needs("certs")),
				sound("dns"), sound("certs"), sound("registry", needs("certs")),
			},
			want: [][]string{{"certs", "dns"}, {"gateway", "registry"}, {"apps"}},
		},
		"empty": {},
	} {
		t.Run(name, func(t *testing.T) {
			waves, err := battery.Order(tc.all)
			if err != nil {
				t.Fatal(err)
			}
			var got [][]string
			for _, wave := range waves {
				var names []string
				for _, b := range wave {
					names = append(names, b.Name)
				}
				got = append(got, names)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("waves (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOrderNamesTheCycle(t *testing.T) {
	_, err := battery.Order([]battery.Battery{sound("a", needs("b")), sound("b", needs("a")), sound("dns")})
	want := battery.Defect{Battery: "a", Field: "Needs", Problem: "form a cycle: a → b → a"}
	if !errors.Is(err, want) {
		t.Errorf("Order = %v, want %v", err, want)
	}
}
