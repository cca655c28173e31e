package detect

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestDockerfile reads folders from testdata/*.txtar. The file "want" at the end
// is the Dockerfile, or the error, that they lead to.
func TestDockerfile(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			folder := fstest.MapFS{}
			want := ""
			kept := archive.Files[:0]
			for _, f := range archive.Files {
				if f.Name == "want" {
					want = string(f.Data)
					continue
				}
				kept = append(kept, f)
				folder[f.Name] = &fstest.MapFile{Data: f.Data, Mode: 0o644}
			}
			plan, err := Dockerfile(folder)
			got := plan.Dockerfile
			if err != nil {
				got = "error: " + err.Error() + "\n"
			}
			if *update {
				archive.Files = append(kept, txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	tests := map[string]struct {
		reason string
		folder fstest.MapFS
		want   error
	}{
		"empty":  {"nothing to go by", fstest.MapFS{}, ErrUnknown},
		"two":    {"Go and Node.js side by side", fstest.MapFS{"go.mod": {Data: []byte("module a\n")}, "package.json": {Data: []byte("{}")}}, ErrAmbiguous},
		"nomain": {"a library", fstest.MapFS{"go.mod": {Data: []byte("module a\n")}, "a.go": {Data: []byte("package a\n")}}, ErrUnknown},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Dockerfile(tc.folder); !errors.Is(err, tc.want) {
				t.Errorf("%s: got error %v, want %v", tc.reason, err, tc.want)
			}
		})
	}
}

func TestAllows(t *testing.T) {
	tests := []struct {
		wanted string
		yes    []int
		no     []int
	}{
		{"20", []int{20}, []int{18, 22}},
		{"20.x", []int{20}, []int{22}},
		{">=18", []int{18, 24}, []int{16}},
		{">= 18.17.0", []int{18, 24}, []int{16}},
		{"^20.1 || ^22", []int{20, 22}, []int{18, 24}},
		{">=18 <23", []int{18, 22}, []int{23, 24}},
		{">=18 <=20.5", []int{18, 20}, []int{22}},
		{"18 - 20", []int{18, 20}, []int{22}},
		{"*", []int{18, 24}, nil},
		{"~22.3.1", []int{22}, []int{20}},
		{"<22.5", []int{22, 20}, []int{24}},
		{">20", []int{22}, []int{20}},
		{"nonsense", nil, []int{20}},
	}
	for _, tc := range tests {
		for _, n := range tc.yes {
			if !allows(tc.wanted, n) {
				t.Errorf("%q does not allow %d", tc.wanted, n)
			}
		}
		for _, n := range tc.no {
			if allows(tc.wanted, n) {
				t.Errorf("%q allows %d", tc.wanted, n)
			}
		}
	}
}

func TestRun(t *testing.T) {
	tests := map[string]string{
		"node server.js":             "CMD [\"node\", \"server.js\"]\n",
		"gunicorn app:app -b :$PORT": "CMD [\"sh\", \"-c\", \"exec gunicorn app:app -b :$PORT\"]\n",
		"a && b":                     "CMD [\"sh\", \"-c\", \"a && b\"]\n",
		`say "hi"`:                   "CMD [\"sh\", \"-c\", \"exec say \\\"hi\\\"\"]\n",
		"A=1 node x.js":              "CMD [\"sh\", \"-c\", \"A=1 node x.js\"]\n",
	}
	for command, want := range tests {
		if got := run(command); got != want {
			t.Errorf("run(%q) = %q, want %q", command, got, want)
		}
	}
}

// FuzzDockerfile checks that no content of the files that decide makes the
// generator panic or write an instruction it did not mean to.
func FuzzDockerfile(f *testing.F) {
	f.Add("module a\n\ngo 1.26\n", "package main\nfunc main() {}\n", `{"scripts":{"start":"node x.js"}}`, "flask\n", "web: a b\n", uint8(1))
	f.Fuzz(func(t *testing.T, mod, main, pkg, req, proc string, which uint8) {
		folder := fstest.MapFS{}
		add := func(bit int, name, text string) {
			if which&(1<<bit) != 0 {
				folder[name] = &fstest.MapFile{Data: []byte(text)}
			}
		}
		add(0, "go.mod", mod)
		add(0, "main.go", main)
		add(1, "package.json", pkg)
		add(2, "requirements.txt", req)
		add(2, "app.py", main)
		add(3, "Procfile", proc)
		plan, err := Dockerfile(folder)
		if err == nil && !strings.Contains(plan.Dockerfile, "\nUSER ") {
			t.Errorf("no USER in:\n%s", plan.Dockerfile)
		}
	})
}
