package cli

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/batteries/apps/client"
)

func TestParseHealth(t *testing.T) {
	tests := map[string]struct {
		want v1alpha1.Health
		ok   bool
	}{
		"tcp":             {v1alpha1.Health{}, true},
		"/":               {v1alpha1.Health{Path: "/"}, true},
		"/healthz?full=1": {v1alpha1.Health{Path: "/healthz?full=1"}, true},
		":9000":           {v1alpha1.Health{Port: 9000}, true},
		":9000/healthz":   {v1alpha1.Health{Port: 9000, Path: "/healthz"}, true},
		":0/x":            {}, ":70000/x": {}, ":x": {}, "healthz": {}, "": {}, "/a b": {}, ":9000healthz": {},
	}
	for text, tt := range tests {
		got, err := parseHealth(text)
		if (err == nil) != tt.ok || (tt.ok && got != tt.want) {
			t.Errorf("--health %q: got %+v, %v; want %+v", text, got, err, tt.want)
		}
	}
}

func TestDeployFlags(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	vars := filepath.Join(dir, "env")
	if err := os.WriteFile(vars, []byte("A=file\nB=file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FROM_SHELL", "from the shell")

	d := &deployment{env: &env{in: strings.NewReader("from input\r\n"), out: io.Discard, err: io.Discard}}
	cmd := deployCommand(d)
	args := []string{
		"--env-file", vars, "--env", "A=flag", "--env", "C=x=y", "--env", "GONE-",
		"--secret", "FILE=@" + file, "--secret", "INPUT=-", "--secret", "FROM_SHELL", "--secret", "OLD-",
		"--domain", "Shop.Example.com.", "--domain", "old.example.com-",
		"--port", "90", "--replicas", "0", "--health", "/healthz", "--memory", "1Gi", "--cpu", "500m",
	}
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	got, err := d.change(cmd)
	if err != nil {
		t.Fatal(err)
	}
	want := client.Change{
		Env: map[string]*string{"A": new("flag"), "B": new("file"), "C": new("x=y"), "GONE": nil},
		Secrets: map[string][]byte{
			"FILE": []byte("from a file"), "INPUT": []byte("from input"), "FROM_SHELL": []byte("from the shell"), "OLD": nil,
		},
		Domains: []v1alpha1.Domain{"shop.example.com"}, DropDomains: []v1alpha1.Domain{"old.example.com"},
		Port: 90, Replicas: new(int32(0)), Health: &v1alpha1.Health{Path: "/healthz"}, Memory: got.Memory, CPU: got.CPU,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got.Memory.String() != "1Gi" || got.CPU.String() != "500m" {
		t.Errorf("memory %s, CPU %s", got.Memory, got.CPU)
	}
}

func TestDeployFlagsNotGivenChangeNothing(t *testing.T) {
	d := &deployment{env: &env{err: io.Discard}}
	got, err := d.change(deployCommand(d))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(client.Change{Env: map[string]*string{}, Secrets: map[string][]byte{}}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Every mistake is reported at once, and names the flag.
func TestDeployFlagMistakes(t *testing.T) {
	d := &deployment{env: &env{in: strings.NewReader(""), err: io.Discard}}
	cmd := deployCommand(d)
	mistakes := [][2]string{
		{"--env", "X"}, {"--env-file", "/no/such/file"}, {"--secret", "NO_SUCH_VARIABLE_HERE"}, {"--secret", "A=@/no/such/file"},
		{"--port", "65536"}, {"--replicas", "-1"}, {"--health", "x"}, {"--memory", "lots"}, {"--cpu", "0"}, {"--domain", "nodots"},
	}
	for _, m := range mistakes {
		if err := cmd.ParseFlags(m[:]); err != nil {
			t.Fatal(err)
		}
	}
	_, err := d.change(cmd)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"--env X", "/no/such/file", "NO_SUCH_VARIABLE_HERE", "secret A", "--port 65536", "--replicas -1", "--health x", "--memory lots", "--cpu 0", "nodots"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not mention %q:\n%v", want, err)
		}
	}
}

func TestIsFolder(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		folder bool
		want   string // a part of the error, "" for none
	}{
		dir:                    {true, ""},
		".":                    {true, ""},
		file:                   {false, "it is a file"},
		"./nowhere":            {false, "no such folder"},
		"nowhere/":             {false, "no such folder"},
		"nginx":                {false, ""},
		"nginx:1":              {false, ""},
		"registry.x/default/a": {false, ""},
		"Not An Image":         {false, "no such folder"},
	}
	for target, tt := range tests {
		folder, err := isFolder(target)
		if folder != tt.folder || (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("isFolder(%q) = %v, %v", target, folder, err)
		}
	}
}
