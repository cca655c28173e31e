package detect

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
)

// assets are the folders that Go programs read beside themselves; whichever is
// there goes into the image.
var assets = []string{"assets", "config", "locales", "migrations", "public", "static", "templates", "views", "web"}

// cModules are modules that are C inside.
var cModules = []string{"github.com/mattn/go-sqlite3", "github.com/confluentinc/confluent-kafka-go", "github.com/h2non/bimg"}

func (p *project) goDockerfile() (string, error) {
	text, err := p.read("go.mod")
	if err != nil {
		return "", err
	}
	mod, err := modfile.Parse("go.mod", []byte(text), nil)
	if err != nil {
		return "", fmt.Errorf("read go.mod: %w", err)
	}
	program, args, err := p.goProgram(mod)
	if err != nil {
		return "", err
	}
	p.because("the program is %s", program)
	image := "golang:" + goLine(mod) + "-bookworm"
	cgo := slices.ContainsFunc(mod.Require, func(r *modfile.Require) bool {
		prefix, _, ok := module.SplitPathVersion(r.Mod.Path)
		return ok && slices.Contains(cModules, prefix) || slices.Contains(cModules, r.Mod.Path)
	})
	base, build := "gcr.io/distroless/static-debian12:nonroot", "CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /out/app "+program
	if cgo {
		p.because("it is linked with C libraries, so the image has Debian's")
		base, build = "debian:bookworm-slim", "CGO_ENABLED=1 go build -trimpath -ldflags='-s -w' -o /out/app "+program
	}
	start := "ENTRYPOINT " + list(append([]string{"/app/app"}, args...)...) + "\n"
	if p.web != "" && strings.HasPrefix(run(p.web), `CMD ["sh"`) {
		// The command needs a shell, which the smallest image has not.
		base = "debian:bookworm-slim"
		start = "CMD " + list("sh", "-c", "exec /app/app"+afterFirstWord(p.web)) + "\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `FROM %s AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    %s

FROM %s
WORKDIR /app
`, image, build, base)
	if base != "gcr.io/distroless/static-debian12:nonroot" {
		b.WriteString("COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/\n")
	}
	for _, dir := range assets {
		if p.hasDir(dir) {
			fmt.Fprintf(&b, "COPY --from=build /src/%s ./%s\n", dir, dir)
		}
	}
	fmt.Fprintf(&b, `COPY --from=build /out/app ./
ENV PORT=%d
EXPOSE %d
USER 65532:65532
%s`, Port, Port, start)
	return b.String(), nil
}

func afterFirstWord(command string) string {
	if i := strings.IndexAny(command, " \t"); i >= 0 {
		return command[i:]
	}
	return ""
}

// oldestGo is the oldest release that an image is made for; older modules build
// with it as well.
const oldestGo = 21

// goLine returns the release line, such as 1.26, that a module asks for.
func goLine(mod *modfile.File) string {
	version := ""
	if mod.Go != nil {
		version = mod.Go.Version
	}
	if mod.Toolchain != nil && mod.Toolchain.Name != "default" {
		version = strings.TrimPrefix(mod.Toolchain.Name, "go")
	}
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 || parts[0] != "1" {
		return "1"
	}
	minor, err := strconv.Atoi(strings.FieldsFunc(parts[1]+"r", func(r rune) bool { return r < '0' || r > '9' })[0])
	if err != nil {
		return "1"
	}
	return fmt.Sprintf("1.%d", max(minor, oldestGo))
}

// goProgram returns the package to build, and the arguments that the Procfile
// gives it.
func (p *project) goProgram(mod *modfile.File) (program string, args []string, err error) {
	mains, err := p.goMains()
	if err != nil {
		return "", nil, err
	}
	name := ""
	if mod.Module != nil {
		prefix, _, _ := module.SplitPathVersion(mod.Module.Mod.Path)
		name = path.Base(prefix)
	}
	if p.web != "" {
		words := strings.Fields(p.web)
		called := path.Base(words[0])
		for _, m := range mains {
			if path.Base(m) == called || m == "." && (called == name || len(mains) == 1) {
				return local(m), words[1:], nil
			}
		}
		return "", nil, fmt.Errorf("the Procfile starts %q, but no program of that name is here; there is %s", called, orNone(mains))
	}
	switch {
	case len(mains) == 0:
		return "", nil, fmt.Errorf("%w: go.mod is there, but no package main with a func main; add one here or in cmd/NAME", ErrUnknown)
	case slices.Contains(mains, "."):
		return ".", nil, nil
	case len(mains) == 1:
		return local(mains[0]), nil, nil
	case slices.Contains(mains, "cmd/"+name):
		return local("cmd/" + name), nil, nil
	}
	return "", nil, fmt.Errorf("%w: there are the programs %s; say which one serves with a Procfile: web: NAME", ErrAmbiguous, strings.Join(mains, ", "))
}

func local(dir string) string {
	if dir == "." {
		return "."
	}
	return "./" + dir
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// maxEntries bounds how many files are looked at.
const maxEntries = 50_000

// goMains returns the folders, sorted, with a package main that belongs to the
// module and is not left out by a build constraint for tools.
func (p *project) goMains() ([]string, error) {
	var mains []string
	entries := 0
	err := fs.WalkDir(p.fs, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entries++; entries > maxEntries {
			return fmt.Errorf("more than %d files", maxEntries)
		}
		base := path.Base(name)
		if d.IsDir() {
			if name != "." && (base == "vendor" || base == "testdata" || base == "node_modules" || base[0] == '.' || base[0] == '_' || p.has(path.Join(name, "go.mod"))) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") || strings.HasSuffix(base, "_test.go") {
			return nil
		}
		dir := path.Dir(name)
		if slices.Contains(mains, dir) {
			return nil
		}
		text, err := p.read(name)
		if err != nil {
			return err
		}
		if isMain(text) {
			mains = append(mains, dir)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for the program: %w", err)
	}
	slices.Sort(mains)
	return mains, nil
}

// isMain tells whether a file makes its folder a program. What cannot be parsed
// is left for the compiler to complain about.
func isMain(text string) bool {
	if !strings.Contains(text, "package main") || !strings.Contains(text, "func main()") {
		return false
	}
	f, err := parser.ParseFile(token.NewFileSet(), "", text, parser.PackageClauseOnly|parser.ParseComments)
	if err != nil || f.Name.Name != "main" {
		return false
	}
	for _, group := range f.Comments {
		if group.Pos() < f.Package && strings.Contains(group.Text()+commentText(text, int(group.Pos())), "go:build ignore") {
			return false
		}
	}
	return true
}

// commentText returns the line of text at a position: CommentGroup.Text leaves
// directives out.
func commentText(text string, pos int) string {
	rest := text[min(max(pos-1, 0), len(text)):]
	line, _, _ := strings.Cut(rest, "\n")
	return line
}
