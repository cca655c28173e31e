package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReadme wants the markers of every section, without which its figures
// have no place.
func TestReadme(t *testing.T) {
	raw, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sections() {
		if _, err := replaceSection(string(raw), s.name, "figures"); err != nil {
			t.Errorf("README.md, section %s: %v", s.name, err)
		}
	}
}

func TestReplaceSection(t *testing.T) {
	const file = "# Title\n<!-- bench:a -->\nold\n<!-- /bench:a -->\nwords\n<!-- bench:b -->\n<!-- /bench:b -->\n"
	got, err := replaceSection(file, "a", "new\n\nfigures")
	if err != nil {
		t.Fatal(err)
	}
	want := "# Title\n<!-- bench:a -->\nnew\n\nfigures\n<!-- /bench:a -->\nwords\n<!-- bench:b -->\n<!-- /bench:b -->\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := replaceSection(file, "c", "new"); err == nil {
		t.Error("a section without markers is written somewhere")
	}
}

func TestChoose(t *testing.T) {
	tests := map[string]struct {
		reason, only string
		want         []string
		fails        bool
	}{
		"all":     {reason: "the cold build takes too long to be done by the way", want: []string{"start", "memory", "deploy", "gateway", "size"}},
		"some":    {reason: "the order is that of the run", only: "gateway,start", want: []string{"start", "gateway"}},
		"build":   {reason: "it is done when it is asked for", only: "build", want: []string{"build"}},
		"unknown": {reason: "a slip measures nothing rather than something else", only: "gatway", fails: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			chosen, err := choose(test.only)
			if (err != nil) != test.fails {
				t.Fatalf("%v, want an error: %t: %s", err, test.fails, test.reason)
			}
			var got []string
			for _, s := range chosen {
				got = append(got, s.name)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s: %s", test.reason, diff)
			}
		})
	}
}

func TestSeries(t *testing.T) {
	if got := (series{9, 1, 5}).median(); got != 5 {
		t.Errorf("the median of three is %v", got)
	}
	if got := (series{4, 1, 2, 3}).median(); got != 2.5 {
		t.Errorf("the median of four is %v", got)
	}
	// In the second round something disturbed both: their ratio stays.
	if got := (series{10, 5, 20}).over(series{5, 2.5, 10}).median(); got != 2 {
		t.Errorf("the ratio is %v", got)
	}
}

func TestCompare(t *testing.T) {
	r := new(report)
	candidates := []candidate{{name: ourProxy}, {name: "Caddy"}, {name: "nginx"}}
	same := func(rate float64) *figures {
		return &figures{rate: series{rate}, p99: series{1}, busy: series{1}, cost: series{10}}
	}
	found := map[string]*figures{ourProxy: same(100), "Caddy": same(80), "nginx": same(99)}
	if n := len(compare(r, gatewayCase{"http", 5000}, candidates, found)); n != 3 {
		t.Errorf("%d rows, want one per proxy", n)
	}
	want := []string{"requests beside Caddy (http, 5000 routes): 1.25×, want rate ≥ 1.3×"}
	if diff := cmp.Diff(want, r.missed); diff != "" {
		t.Error(diff)
	}
}

func TestPackageOf(t *testing.T) {
	for symbol, want := range map[string]string{
		"runtime.mallocgc":                                      "runtime",
		"k8s.io/api/core/v1.(*Pod).Marshal":                     "k8s.io/api/core/v1",
		"gopkg.in/inf%2ev0.NewDec":                              "gopkg.in/inf.v0",
		"go:itab.*k8s.io/api/core/v1.Pod,k8s.io/a.Object":       "k8s.io/api/core/v1",
		"type:.eq.net/http.Header":                              "net/http",
		"slices.SortFunc[go.shape.[]k8s.io/api/core/v1.Pod]":    "slices",
		"github.com/x/y.(*T[go.shape.struct { a/b.C }]).Method": "github.com/x/y",
		"runtime": "",
	} {
		if got := packageOf(symbol); got != want {
			t.Errorf("%s belongs to %q, want %q", symbol, got, want)
		}
	}
}

// TestWithout has a diamond: what two parts share goes with neither.
func TestWithout(t *testing.T) {
	g := graph{
		program:  {ImportPath: program, Imports: []string{"a", "b"}},
		"a":      {ImportPath: "a", Imports: []string{"a/own", "shared"}},
		"b":      {ImportPath: "b", Imports: []string{"shared", "old"}, ImportMap: map[string]string{"old": "vendored"}},
		"a/own":  {ImportPath: "a/own"},
		"shared": {ImportPath: "shared"}, "vendored": {ImportPath: "vendored"},
	}
	weight := map[string]float64{program: 1, "a": 10, "a/own": 100, "b": 1000, "shared": 10000, "vendored": 100000}
	got := []price{
		g.without("a", weight, under("a")),
		g.without("b", weight, under("b")),
		g.without("both", weight, under("a", "b")),
	}
	want := []price{
		{name: "a", own: 110, all: 110, packages: 2},
		{name: "b", own: 1000, all: 101000, packages: 2},
		{name: "both", own: 1110, all: 111110, packages: 5},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(price{})); diff != "" {
		t.Error(diff)
	}
}

func TestReadActions(t *testing.T) {
	got, link, err := readActions([]byte(`[
		{"Mode": "link", "Package": "main", "CmdUser": 5000000000},
		{"Mode": "build", "Package": "a", "CmdUser": 1500000000, "CmdSys": 500000000},
		{"Mode": "build", "Package": "b"}]`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]float64{"a": 2, "b": 0}, got); diff != "" || link != 5 {
		t.Errorf("linking %v s, packages %s", link, diff)
	}
}

// TestConfigurations wants every route in every configuration.
func TestConfigurations(t *testing.T) {
	folder := t.TempDir()
	cert, key, err := makeCertificate(folder)
	if err != nil {
		t.Fatal(err)
	}
	s := setup{routes: 3, plain: 80, secure: 443, backend: "127.0.0.1:9", cert: cert, key: key, folder: folder}
	for name, configure := range map[string]configure{"nginx.conf": nginxProxy, "haproxy.map": haproxyProxy, "caddy.json": caddyProxy} {
		if _, err := configure(s, "program"); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range s.hosts() {
			if !strings.Contains(string(raw), host) {
				t.Errorf("%s lacks %s", name, host)
			}
		}
	}
}
