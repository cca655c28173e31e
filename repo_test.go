// Package emerald has no code: its test is the repository testing itself, so
// that the house stays as CONTRIBUTING.md describes it.
package emerald

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/emerald-platform/emerald"

// source is one Go file of the main module.
type source struct {
	path    string // slash-separated, from the root
	pkg     string // folder
	file    *ast.File
	lines   int
	imports []string
	test    bool
}

// sources parses every Go file of the main module.
func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin" || nested(path)) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(fset, path, raw, parser.ParseComments)
		if err != nil {
			return err
		}
		s := source{path: filepath.ToSlash(path), file: file, lines: bytes.Count(raw, []byte("\n")), test: strings.HasSuffix(path, "_test.go")}
		s.pkg = filepath.ToSlash(filepath.Dir(path))
		for _, i := range file.Imports {
			s.imports = append(s.imports, strings.Trim(i.Path.Value, `"`))
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// nested tells whether a folder is a module of its own.
func nested(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return dir != "." && err == nil
}

// under tells whether folder pkg is dir or inside it.
func under(pkg, dir string) bool { return pkg == dir || strings.HasPrefix(pkg, dir+"/") }

// TestImportLaw holds the architecture: each ban says why.
func TestImportLaw(t *testing.T) {
	bans := []struct{ from, to, except, why string }{
		{"batteries", "platform", "", "a battery speaks only Kubernetes, so that it runs on clusters Emerald did not boot"},
		{"batteries", "cli", "", "commands call batteries, never the other way"},
		{"battery", "batteries", "", "the contract knows no battery"},
		{"battery", "platform", "", "the contract knows no platform"},
		{"battery", "cli", "", "the contract knows no command"},
		{"kit", "battery", "", "the kit is the bottom of the house"},
		{"kit", "batteries", "", "the kit is the bottom of the house"},
		{"kit", "platform", "", "the kit is the bottom of the house"},
		{"kit", "cli", "", "the kit is the bottom of the house"},
		{"platform", "batteries", "", "the platform gets its batteries as an argument"},
		{"platform", "cli", "", "commands call the platform, never the other way"},
		{"picture", "batteries", "", "the picture gets its batteries as an argument"},
		{"picture", "platform", "", "the picture is the same on clusters Emerald did not boot"},
		{"api", "battery", "", "types are data that everybody may import"},
		{"api", "batteries", "", "types are data that everybody may import"},
		{"api", "platform", "", "types are data that everybody may import"},
	}
	for _, s := range sources(t) {
		for _, imp := range s.imports {
			to, ours := strings.CutPrefix(imp, module+"/")
			for _, ban := range bans {
				if ours && under(s.pkg, ban.from) && under(to, ban.to) {
					t.Errorf("%s imports %s: %s", s.path, to, ban.why)
				}
			}
			if ours && under(s.pkg, "batteries") && s.pkg != "batteries" && under(to, "batteries") &&
				strings.Split(to, "/")[1] != strings.Split(s.pkg, "/")[1] {
				t.Errorf("%s imports %s: batteries meet only through the cluster's API", s.path, to)
			}
			if under(imp, "k8s.io/kubernetes") && !under(s.pkg, "platform") {
				t.Errorf("%s imports %s: only platform/ embeds Kubernetes", s.path, imp)
			}
		}
	}
}

// TestFiles holds the budgets and names of files.
func TestFiles(t *testing.T) {
	banned := []string{"util", "utils", "helper", "helpers", "common", "types", "misc", "base"}
	for _, s := range sources(t) {
		if s.lines > 800 && !strings.Contains(s.path, "zz_") {
			t.Errorf("%s has %d lines, the limit is 800: split it by the nouns of its domain", s.path, s.lines)
		}
		name := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(s.path), ".go"), "_test")
		if slices.Contains(banned, name) || slices.Contains(banned, filepath.Base(s.pkg)) {
			t.Errorf("%s is named after nothing: name it after a noun of its domain", s.path)
		}
	}
}

// TestPackageDocs wants one package comment per package, in the file named
// after it.
func TestPackageDocs(t *testing.T) {
	documented := map[string][]string{}
	packages := map[string]bool{}
	for _, s := range sources(t) {
		if s.test || s.pkg == "." {
			continue
		}
		packages[s.pkg] = true
		if s.file.Doc != nil && !ast.IsGenerated(s.file) {
			documented[s.pkg] = append(documented[s.pkg], s.path)
		}
	}
	for pkg := range packages {
		if n := len(documented[pkg]); n != 1 {
			t.Errorf("package %s has %d package comments, want one: %v", pkg, n, documented[pkg])
		}
	}
}

// TestDocumented wants a comment on every exported name outside of tests.
func TestDocumented(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || ast.IsGenerated(s.file) {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) && !slices.Contains(selfEvident, d.Name.Name) {
					t.Errorf("%s: func %s has no comment", s.path, d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if ts, ok := spec.(*ast.TypeSpec); ok && ts.Name.IsExported() && d.Doc == nil && ts.Doc == nil {
						t.Errorf("%s: type %s has no comment", s.path, ts.Name.Name)
					}
				}
			}
		}
	}
}

// selfEvident are methods of the standard library's interfaces, which say what
// those say.
var selfEvident = []string{"Error", "Is", "Unwrap", "String"}

// exportedReceiver tells whether a function's documentation is ever shown.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	ident, ok := typ.(*ast.Ident)
	return !ok || ident.IsExported()
}

// TestNoGlobalState refuses what makes code depend on the order of imports.
func TestNoGlobalState(t *testing.T) {
	for _, s := range sources(t) {
		if ast.IsGenerated(s.file) {
			continue
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function: make it a call from main", s.path)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && sel.Sel.Name == "Sleep" {
					t.Errorf("%s sleeps: wait on a condition with a deadline", s.path)
				}
			}
			return true
		})
	}
}

// TestStamps wants a string variable behind every value of ours that the build
// stamps: the linker says nothing about names that do not exist.
func TestStamps(t *testing.T) {
	raw, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	stamps := regexp.MustCompile(`-X `+regexp.QuoteMeta(module)+`/([^ =]+)\.(\w+)=`).FindAllStringSubmatch(string(raw), -1)
	if len(stamps) == 0 {
		t.Error("the Makefile stamps nothing")
	}
	vars := map[string]bool{}
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
				for _, spec := range g.Specs {
					vars[s.pkg+"."+spec.(*ast.ValueSpec).Names[0].Name] = true
				}
			}
		}
	}
	for _, stamp := range stamps {
		if name := stamp[1] + "." + stamp[2]; !vars[name] {
			t.Errorf("the Makefile stamps %s, which does not exist", name)
		}
	}
}

// TestBatteryFolders wants every battery complete: a README, proofs, a golden
// test.
func TestBatteryFolders(t *testing.T) {
	entries, err := os.ReadDir("batteries")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		name := e.Name()
		for _, want := range []string{"README.md", name + ".go", "manifests.go", "proofs.go", "testdata/manifests.yaml"} {
			if _, err := os.Stat(filepath.Join("batteries", name, want)); err != nil {
				t.Errorf("battery %s has no %s", name, want)
			}
		}
	}
}

// TestDependencies holds deps.txt: every module that our code imports is there
// with its licence and one sentence of why, and nothing else is.
func TestDependencies(t *testing.T) {
	modules := requiredModules(t)
	used := map[string]string{}
	for _, s := range sources(t) {
		for _, imp := range s.imports {
			if m := moduleOf(imp, modules); m != "" && used[m] == "" {
				used[m] = s.path
			}
		}
	}
	listed := map[string]bool{}
	raw, err := os.ReadFile("deps.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		fields := strings.SplitN(strings.TrimSpace(line), " ", 3)
		if len(fields) < 3 {
			t.Errorf("deps.txt: %q: want «module licence why»", strings.TrimSpace(line))
			continue
		}
		listed[fields[0]] = true
		if used[fields[0]] == "" {
			t.Errorf("deps.txt lists %s, which nothing imports", fields[0])
		}
	}
	for m, path := range used {
		if !listed[m] {
			t.Errorf("%s imports %s, which deps.txt does not list: add it with its licence and why we need it", path, m)
		}
	}
}

// requiredModules returns the module paths that go.mod requires.
func requiredModules(t *testing.T) []string {
	t.Helper()
	f, err := os.Open("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []string
	inside := false
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		fields := strings.Fields(scanner.Text())
		switch {
		case len(fields) == 2 && fields[0] == "require" && fields[1] == "(":
			inside = true
		case len(fields) == 1 && fields[0] == ")":
			inside = false
		case inside && len(fields) >= 2:
			out = append(out, fields[0])
		case len(fields) >= 3 && fields[0] == "require":
			out = append(out, fields[1])
		}
	}
	return out
}

// moduleOf returns the required module that an import comes from, "" for the
// standard library and our own.
func moduleOf(imp string, modules []string) string {
	best := ""
	for _, m := range modules {
		if under(imp, m) && len(m) > len(best) {
			best = m
		}
	}
	return best
}
