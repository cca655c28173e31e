// Package detect writes a Dockerfile for a folder that has none, from what
// lies in it: Go, Node.js, Python, or the files of a static site.
//
// It promises a Dockerfile that a person could have written and may take over:
// `emerald build --print-dockerfile DIR > Dockerfile` changes nothing about the
// build. The image runs as a numbered user without root, and listens on $PORT,
// 8080 where nothing else is said. A Procfile is honoured.
//
// It refuses to guess between two readings: the error names what was found,
// what was looked for, and how to say which is meant.
//
// Invariant: the result depends on the folder's content alone.
package detect

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Plan is how a folder is built.
type Plan struct {
	// Kind is what was found: "Go", "Node.js", "Python" or "static site".
	Kind string

	// Dockerfile is its text.
	Dockerfile string

	// Ignore is the text of a .dockerignore for a folder that has none.
	Ignore string

	// Reasons say in sentences what decided, for people.
	Reasons []string
}

// ErrUnknown says that nothing in the folder says how to build it.
var ErrUnknown = errors.New("found no Dockerfile and nothing else that says how to build this folder")

// ErrAmbiguous says that a folder can be read in more than one way.
var ErrAmbiguous = errors.New("found more than one way to build this folder")

// Port is where a generated image listens unless $PORT says otherwise.
const Port = 8080

// kind is one kind of source.
type kind struct {
	name  string
	signs []string // files whose presence tells
	write func(*project) (string, error)
}

var kinds = []kind{
	{"Go", []string{"go.mod"}, (*project).goDockerfile},
	{"Node.js", []string{"package.json"}, (*project).nodeDockerfile},
	{"Python", []string{"requirements.txt", "pyproject.toml", "setup.py", "Pipfile"}, (*project).pythonDockerfile},
}

// sites are the places of a static site's first page.
var sites = []string{"index.html", "public/index.html", "dist/index.html", "build/index.html", "_site/index.html", "site/index.html", "www/index.html"}

// Dockerfile looks at a folder and writes its Dockerfile.
func Dockerfile(fsys fs.FS) (Plan, error) {
	p := &project{fs: fsys}
	if err := p.readProcfile(); err != nil {
		return Plan{}, err
	}
	var found []kind
	var signs []string
	for _, k := range kinds {
		if sign := p.first(k.signs); sign != "" {
			found, signs = append(found, k), append(signs, sign)
		}
	}
	if len(found) > 1 {
		return Plan{}, fmt.Errorf("%w: %s; add a Dockerfile, or name the folder inside that is meant", ErrAmbiguous, strings.Join(signs, " and "))
	}
	if len(found) == 0 {
		k, sign, err := p.lesser()
		if err != nil {
			return Plan{}, err
		}
		found, signs = []kind{k}, []string{sign}
	}
	p.because("%s: there is %s", found[0].name, signs[0])
	text, err := found[0].write(p)
	if err != nil {
		return Plan{}, err
	}
	return Plan{Kind: found[0].name, Dockerfile: p.header(found[0].name) + text, Ignore: ignore, Reasons: p.reasons}, nil
}

// lesser looks for the signs that count only where there are no better ones.
func (p *project) lesser() (kind, string, error) {
	if sign := p.first(pythonEntries); sign != "" {
		return kinds[2], sign, nil
	}
	if sign := p.first(sites); sign != "" {
		return kind{name: "static site", write: func(p *project) (string, error) { return p.siteDockerfile(path.Dir(sign)), nil }}, sign, nil
	}
	return kind{}, "", fmt.Errorf(`%w
  looked for: Dockerfile, go.mod (Go), package.json (Node.js), requirements.txt or pyproject.toml (Python), index.html here or in public/ or dist/ (static site)
  add one of them, or name another folder`, ErrUnknown)
}

// ignore keeps out what no build wants: history, what is installed or built
// anew, and secrets that happen to lie about.
const ignore = `.git
.gitignore
.github
.gitlab-ci.yml
.idea
.vscode
.DS_Store
.env
.env.*
Dockerfile*
.dockerignore
**/node_modules
**/__pycache__
**/.venv
**/*.pyc
`

// project is a folder being looked at.
type project struct {
	fs      fs.FS
	web     string // the command of the Procfile's web process
	reasons []string
}

func (p *project) because(format string, args ...any) {
	p.reasons = append(p.reasons, strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "))
}

// header tells a reader of the Dockerfile where it comes from.
func (p *project) header(kind string) string {
	var b strings.Builder
	b.WriteString("# How Emerald builds this folder (" + kind + ").\n# To change it, keep it: emerald build --print-dockerfile . > Dockerfile\n#\n")
	for _, r := range p.reasons {
		b.WriteString("# - " + r + "\n")
	}
	return b.String()
}

// maxFile bounds what is read of one file.
const maxFile = 4 << 20

// read returns the content of a file, "" when there is none.
func (p *project) read(name string) (string, error) {
	f, err := p.fs.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read %q: %w", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return "", fmt.Errorf("read %q: %w", name, err)
	}
	return string(b), nil
}

func (p *project) has(name string) bool {
	info, err := fs.Stat(p.fs, name)
	return err == nil && !info.IsDir()
}

func (p *project) hasDir(name string) bool {
	info, err := fs.Stat(p.fs, name)
	return err == nil && info.IsDir()
}

// first returns the first of the files that is there, or "".
func (p *project) first(names []string) string {
	if i := slices.IndexFunc(names, p.has); i >= 0 {
		return names[i]
	}
	return ""
}

// readProcfile finds the command of the process that serves the web, as the
// Procfile convention has it: "web: command".
func (p *project) readProcfile() error {
	text, err := p.read("Procfile")
	if err != nil || text == "" {
		return err
	}
	var others []string
	for _, line := range strings.Split(text, "\n") {
		name, command, ok := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if name == "web" {
			p.web = strings.TrimSpace(command)
		} else {
			others = append(others, name)
		}
	}
	if p.web == "" {
		return fmt.Errorf("the Procfile has no line \"web: COMMAND\" with the program that serves (it has %q)", others)
	}
	p.because("the Procfile says how it starts: %s", p.web)
	return nil
}

// run returns a CMD instruction for a command line: as a list where that means
// the same, through a shell where the shell has work to do.
func run(command string) string {
	words := strings.Fields(command)
	switch {
	case strings.ContainsAny(command, ";&|()\n") || len(words) > 0 && strings.Contains(words[0], "="):
		// More than one command, or variables before it: no place for exec.
		return "CMD " + list("sh", "-c", command) + "\n"
	case strings.ContainsAny(command, "$`\"'\\<>*?[]{}~#!"):
		return "CMD " + list("sh", "-c", "exec "+command) + "\n"
	}
	return "CMD " + list(words...) + "\n"
}

// list writes words in the JSON form of a Dockerfile's instructions.
func list(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// quote writes a JSON string, without the escapes that encoding/json makes for
// HTML.
func quote(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil { // never for a string
		return `""`
	}
	return strings.TrimSpace(b.String())
}
