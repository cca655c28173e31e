package client

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

func TestReadEnv(t *testing.T) {
	tests := map[string]struct {
		text string
		want map[string]string // nil is an error
	}{
		"plain":             {"A=1\nB=two words\n", map[string]string{"A": "1", "B": "two words"}},
		"comments":          {"# one\n\n  # two\nA=1 # not a comment", map[string]string{"A": "1 # not a comment"}},
		"export and spaces": {"export A = 1 ", map[string]string{"A": "1"}},
		"quotes":            {`A="x \"y\"\n\\ #" # end` + "\nB='x \\n'", map[string]string{"A": "x \"y\"\n\\ #", "B": `x \n`}},
		"equals signs":      {"A=b=c==", map[string]string{"A": "b=c=="}},
		"empty":             {"A=\nB=\"\"", map[string]string{"A": "", "B": ""}},
		"byte order mark":   {"\uFEFFA=1", map[string]string{"A": "1"}},
		"windows":           {"A=1\r\nB=2\r\n", map[string]string{"A": "1", "B": "2"}},
		"nothing":           {"", map[string]string{}},
		"no value":          {"A", nil},
		"no name":           {"=1", nil},
		"bad name":          {"A B=1", nil},
		"open quote":        {`A="x`, nil},
		"after the quote":   {`A="x" y`, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ReadEnv(strings.NewReader(tt.text))
			if (err != nil) != (tt.want == nil) || (err != nil && !errors.Is(err, ErrEnvFile)) {
				t.Fatalf("got %v, %v", got, err)
			}
			if diff := cmp.Diff(tt.want, got); tt.want != nil && diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func FuzzReadEnv(f *testing.F) {
	for _, s := range []string{"A=1", `A="\`, "export ", "A='", "\uFEFF=", "A=\"\\n\" #"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		vars, err := ReadEnv(strings.NewReader(s))
		if err != nil {
			return
		}
		for name := range vars {
			if name == "" || strings.ContainsAny(name, "=\n\x00") {
				t.Errorf("%q gave a variable called %q", s, name)
			}
		}
	})
}

func TestReadManifest(t *testing.T) {
	const head = "apiVersion: emerald.dev/v1alpha1\nkind: App\n"
	tests := map[string]struct {
		text string
		want string // a part of the error, "" for none
	}{
		"good":           {head + "metadata: {name: web}\nspec: {port: 80}", ""},
		"without a name": {head + "spec: {port: 80}", ""},
		"platform":       {"apiVersion: emerald.dev/v1alpha1\nkind: Platform\n", "it must hold kind App"},
		"unknown field":  {head + "spec: {prot: 80}", `unknown field "spec.prot"`},
		"bad name":       {head + "metadata: {name: a.b}", "host name"},
		"no YAML":        {"{", "no YAML"},
		"given twice":    {head + "spec: {port: 80, port: 81}", "port"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			app, err := ReadManifest(fstest.MapFS{ManifestFile: {Data: []byte(tt.text)}})
			if tt.want == "" && (err != nil || app == nil) {
				t.Errorf("refused: %v", err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want it to say %q", err, tt.want)
			}
		})
	}
	if app, err := ReadManifest(fstest.MapFS{}); app != nil || err != nil {
		t.Errorf("a folder without a manifest gave %v, %v", app, err)
	}
}

func FuzzReadManifest(f *testing.F) {
	const head = "apiVersion: emerald.dev/v1alpha1\nkind: App\n"
	for _, s := range []string{"", head, head + "metadata: {name: web}\nspec: {port: 80, port: 81}", head + "spec: &a {env: [*a]}", "kind: [App]", head + "metadata: {name: ../x}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		app, err := ReadManifest(fstest.MapFS{ManifestFile: {Data: []byte(text)}})
		if (app == nil) != (err != nil) {
			t.Errorf("%q is %+v, %v", text, app, err)
		}
		if err == nil && app.Name != "" && CheckName(app.Name) != nil {
			t.Errorf("%q was taken, and names the app %q", text, app.Name)
		}
	})
}

// FuzzImageConfig reads what the maker of an image wrote into it.
func FuzzImageConfig(f *testing.F) {
	f.Add("0:0", "80/tcp")
	f.Add("4294967296", "99999/udp")
	f.Add(":", "/")
	f.Fuzz(func(t *testing.T, user, exposed string) {
		switch kind := UserKind(user); kind {
		case v1alpha1.UserRoot, v1alpha1.UserNamed, v1alpha1.UserNumeric:
		default:
			t.Errorf("user %q is of kind %q", user, kind)
		}
		if port := ExposedPort(ocispecs.ImageConfig{ExposedPorts: map[string]struct{}{exposed: {}}}); port < 0 || port > 65535 {
			t.Errorf("%q is port %d", exposed, port)
		}
	})
}
