package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/emerald-platform/emerald/batteries"
	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/machine"
)

const platformHead = "apiVersion: emerald.dev/v1alpha1\nkind: Platform\n"

// What `emerald up --config` refuses, it refuses before anything is changed,
// and names everything at once.
func TestConfig(t *testing.T) {
	tests := map[string]struct {
		reason string
		file   string
		flags  machine.Settings
		has    machine.Settings // of an earlier start
		domain string           // in force afterwards
		errs   []string
	}{
		"nothing said":  {reason: "every field may be left out", file: platformHead, domain: "emerald.localhost"},
		"a domain":      {reason: "the file's counts", file: platformHead + "spec: {domain: apps.example.com}\n", domain: "apps.example.com"},
		"a battery off": {reason: "nobody needs build but apps' users", file: platformHead + "spec: {batteries: {build: {enabled: false}}}\n", domain: "emerald.localhost"},
		"a setting":     {reason: "it is laid over the defaults", file: platformHead + "spec: {batteries: {registry: {config: {maxBlob: 2Gi}}}}\n", domain: "emerald.localhost"},
		"file and flag": {
			reason: "the flag is stronger", file: platformHead + "spec: {domain: apps.example.com}\n",
			flags: machine.Settings{Domain: "flag.example.com"}, domain: "flag.example.com"},
		"what the cluster says": {
			reason: "status and metadata of a Platform that was printed are no harm",
			file:   platformHead + "metadata: {name: emerald, uid: abc, resourceVersion: '12'}\nstatus: {domain: x}\n", domain: "emerald.localhost"},
		"empty": {reason: "it may be the wrong file", file: "", errs: []string{"begin it with apiVersion: emerald.dev/v1alpha1"}},
		"no YAML": {
			reason: "YAML's own words name the line", file: platformHead + "spec:\n\tdomain: x\n", errs: []string{"line 4"}},
		"given twice": {reason: "one of them would be lost", file: platformHead + "spec: {}\nspec: {}\n", errs: []string{"line 4", `"spec"`}},
		"unknown fields": {
			reason: "all are named, with those there are",
			file:   platformHead + "sepc: {}\nspec: {domian: x, batteries: {dns: {confg: {}}}}\n",
			errs:   []string{`"sepc"`, `"spec.domian": there are batteries, domain`, `"spec.batteries.dns.confg": there are config, enabled`, "emerald up --help"}},
		"another kind": {reason: "an App is deployed, not booted", file: "apiVersion: emerald.dev/v1alpha1\nkind: App\n", errs: []string{`kind "App"`}},
		"wrong types":  {reason: "the field is named", file: platformHead + "spec: {batteries: {dns: {enabled: 3}}}\n", errs: []string{"enabled", "true or false"}},
		"everything else": {
			reason: "all at once",
			file: platformHead + `
spec:
  domain: Apps_Example
  batteries:
    dsn: {}
    certs: {enabled: false}
    registry: {config: {maxBlob: lots, quotaa: 1}}
`,
			errs: []string{`domain "Apps_Example"`, `no battery "dsn"`, `battery "certs" cannot be off`, "quotaa"}},
		"another domain later": {
			reason: "images carry it in their names", file: platformHead + "spec: {domain: new.example.com}\n",
			has:  machine.Settings{Node: "one", Address: "192.0.2.1", Domain: "old.example.com"},
			errs: []string{`domain "new.example.com"`, `started with "old.example.com"`, "emerald down --wipe"}},
		"another name later": {
			reason: "a node keeps its name", file: platformHead, flags: machine.Settings{Node: "two"},
			has:  machine.Settings{Node: "one", Address: "192.0.2.1", Domain: "old.example.com"},
			errs: []string{`from "one" to "two"`, "leave out --node"}},
		"bad flags": {
			reason: "all at once", file: platformHead,
			flags: machine.Settings{Node: "No_de", Address: "nowhere", Domain: "10.0.0.1"},
			errs:  []string{`"No_de"`, `"nowhere" is no IPv4 address`, `"10.0.0.1": it is an address`}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := dirs.Dirs{Data: t.TempDir(), Run: t.TempDir()}
			if tt.has.Node != "" {
				if err := machine.SaveSettings(d, tt.has); err != nil {
					t.Fatal(err)
				}
			}
			before := listing(t, d.Data)
			file := filepath.Join(t.TempDir(), "emerald.yaml")
			if err := os.WriteFile(file, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			if tt.flags.Node == "" && tt.has.Node == "" {
				tt.flags.Node, tt.flags.Address = "one", "192.0.2.1"
			}
			e := &env{batteries: batteries.All, out: &bytes.Buffer{}, err: &bytes.Buffer{}}
			spec, err := e.readConfig(file)
			var s machine.Settings
			if err == nil {
				s, err = e.settle(d, tt.flags, spec)
			}
			if diff := cmp.Diff(before, listing(t, d.Data)); diff != "" {
				t.Errorf("the data directory changed, -before +after:\n%s", diff)
			}
			if len(tt.errs) == 0 {
				if err != nil {
					t.Fatalf("%s: %v", tt.reason, err)
				}
				if s.Domain != tt.domain || spec.Domain != "" && spec.Domain != tt.domain {
					t.Errorf("%s: the machine has the domain %q and the Platform %q, want %q", tt.reason, s.Domain, spec.Domain, tt.domain)
				}
				return
			}
			if err == nil {
				t.Fatalf("%s: accepted", tt.reason)
			}
			for _, want := range tt.errs {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%s: the error does not say %q:\n%v", tt.reason, want, err)
				}
			}
		})
	}
}

// listing returns the files in a directory with their contents.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(raw)
	}
	return out
}
