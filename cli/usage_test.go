package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emerald-platform/emerald/batteries"
)

// typed runs the command line without a cluster and returns what it printed and
// its exit code.
func typed(t *testing.T, args ...string) (out, errOut string, code int) {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBECONFIG", "/nonexistent")
	t.Setenv("EMERALD_DATA", t.TempDir())
	t.Setenv("EMERALD_RUN", t.TempDir())
	var stdout, stderr bytes.Buffer
	e := &env{batteries: batteries.All, in: strings.NewReader(""), out: &stdout, err: &stderr}
	root := newRoot(e)
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	root.SetArgs(args)
	code = report(e, root.ExecuteContext(t.Context()))
	return stdout.String(), stderr.String(), code
}

// What is typed wrongly is refused with what to type instead, and standard
// output stays empty: a script that reads it must not take help for a result.
func TestWrongUsage(t *testing.T) {
	tests := map[string]struct {
		args []string
		code int
		want []string
	}{
		"no such command":        {[]string{"stauts"}, 1, []string{`no command "stauts"`, "did you mean: emerald status", "emerald --help"}},
		"no such command of app": {[]string{"app", "lsit"}, 1, []string{`emerald app: there is no command "lsit"`, "emerald app --help"}},
		"no such battery cmd":    {[]string{"batteries", "dns"}, 1, []string{`no command "dns"`, "emerald batteries --help"}},
		"no such flag":           {[]string{"deploy", "--prot", "80"}, 1, []string{"emerald deploy: unknown flag: --prot", "emerald deploy --help"}},
		"a flag's value":         {[]string{"deploy", "--port", "http"}, 1, []string{`"http"`, "emerald deploy --help"}},
		"no app":                 {[]string{"app", "show"}, 1, []string{"name an app", "emerald app show NAME", "emerald app list"}},
		"no number of copies":    {[]string{"app", "scale", "shop"}, 1, []string{"emerald app scale NAME COPIES"}},
		"a word too much":        {[]string{"app", "logs", "a", "b"}, 1, []string{`"b" is too much`}},
		"two folders":            {[]string{"deploy", "a", "b"}, 1, []string{"emerald deploy", "emerald deploy --help"}},
		"arguments of status":    {[]string{"status", "now"}, 1, []string{"emerald status --help"}},
		"output":                 {[]string{"status", "-o", "yaml"}, 1, []string{`output "yaml": use json`}},
		"output of version":      {[]string{"version", "-o", "yaml"}, 1, []string{`output "yaml": use json`}},
		"output of verify":       {[]string{"verify", "-o", "yaml"}, 2, []string{`output "yaml": use json`}},
		"unknown battery":        {[]string{"batteries", "show", "dsn"}, 1, []string{`no battery "dsn"`, "emerald batteries"}},
		"no cluster":             {[]string{"app", "list", "-o", "json"}, 1, []string{"find the cluster", "emerald up"}},
		"no cluster for status":  {[]string{"status", "-o", "json"}, 1, []string{"find the cluster", "emerald up"}},
		"no cluster for verify":  {[]string{"verify"}, 2, []string{"find the cluster", "emerald up"}},
		"no kubeconfig":          {[]string{"kubeconfig"}, 1, []string{"none was ever started here", "emerald up"}},
		"no such folder":         {[]string{"deploy", "./nowhere"}, 1, []string{"there is no such folder"}},
		"a file":                 {[]string{"deploy", "usage_test.go"}, 1, []string{"it is a file", "folder"}},
		"variable":               {[]string{"deploy", ".", "--env", "1A=x"}, 1, []string{`variable "1A"`, "LOG_LEVEL"}},
		"variable with a space":  {[]string{"deploy", ".", "--env", "A B=x"}, 1, []string{`variable "A B"`}},
		"secret":                 {[]string{"deploy", ".", "--secret", "A=B=-"}, 1, nil},
		"app's name":             {[]string{"deploy", ".", "--name", "My_Shop"}, 1, []string{`name "My_Shop"`, "at most 63 of a-z"}},
		"app's name with a dot":  {[]string{"deploy", ".", "--name", "my.shop"}, 1, []string{`name "my.shop"`}},
		"port":                   {[]string{"deploy", ".", "--port", "70000"}, 1, []string{"use 1 to 65535"}},
		"memory":                 {[]string{"deploy", ".", "--memory", "lots"}, 1, []string{"256Mi"}},
		"domain":                 {[]string{"deploy", ".", "--domain", "shop"}, 1, []string{`domain "shop"`, "shop.example.com"}},
		"settings of no file":    {[]string{"up", "--config", "nowhere.yaml"}, 1, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			out, errOut, code := typed(t, tt.args...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if out != "" {
				t.Errorf("standard output has %q", out)
			}
			if !strings.HasPrefix(errOut, "emerald: ") && !strings.HasPrefix(errOut, "note: ") {
				t.Errorf("standard error is %q", errOut)
			}
			for _, want := range tt.want {
				if !strings.Contains(errOut, want) {
					t.Errorf("%q does not say %q", errOut, want)
				}
			}
		})
	}
}

// A cluster that does not answer is named, with what to do.
func TestSilence(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "config")
	const silent = `{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: x}}], clusters: [{name: x, cluster: {server: "https://127.0.0.1:1"}}]}`
	if err := os.WriteFile(kubeconfig, []byte(silent), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"status"}, {"verify"}, {"app", "list"}, {"app", "show", "shop"}, {"app", "logs", "shop"}, {"deploy", "."}, {"deploy", "docker.io/library/nginx:1"},
		{"build", "../examples/static"}, {"registry", "list"}, {"trust", "--print"},
	} {
		out, errOut, code := typed(t, append(args, "--kubeconfig", kubeconfig)...)
		if code == 0 || out != "" {
			t.Errorf("%q: exit code %d, standard output %q", args, code, out)
		}
		for _, want := range []string{"the API server at https://127.0.0.1:1 does not answer", "emerald up"} {
			if !strings.Contains(errOut, want) {
				t.Errorf("%q: %q does not say %q", args, errOut, want)
			}
		}
	}
}

// Every command says what it is for, and those that people use how.
func TestHelp(t *testing.T) {
	out, _, code := typed(t, "--help")
	if code != 0 || strings.Contains(out, "--version=raw") {
		t.Errorf("exit code %d, help:\n%s", code, out)
	}
	if out, _, code := typed(t, "--version"); code != 0 || !strings.Contains(out, "emerald version") {
		t.Errorf("--version: exit code %d, %q", code, out)
	}
}

func TestCompletion(t *testing.T) {
	for _, args := range [][]string{{"batteries", "show", ""}, {"verify", ""}} {
		out, _, code := typed(t, append([]string{"__complete"}, args...)...)
		if code != 0 || !strings.Contains(out, "registry\t") {
			t.Errorf("%q completes with %q, want the batteries", args, out)
		}
	}
}
