package detect

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// packageJSON is what of a package.json decides.
type packageJSON struct {
	Main            string            `json:"main"`
	Scripts         map[string]string `json:"scripts"`
	Engines         map[string]string `json:"engines"`
	Dependencies    map[string]string `json:"dependencies"`
	DevDependencies map[string]string `json:"devDependencies"`
	PackageManager  string            `json:"packageManager"`
}

func (j packageJSON) uses(pkg string) bool {
	_, dep := j.Dependencies[pkg]
	_, dev := j.DevDependencies[pkg]
	return dep || dev
}

// nodeLines are the release lines of Node.js to choose from, the preferred
// first.
var nodeLines = []int{24, 22, 20, 18, 26}

func (p *project) nodeDockerfile() (string, error) {
	text, err := p.read("package.json")
	if err != nil {
		return "", err
	}
	var j packageJSON
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return "", fmt.Errorf("read package.json: %w", err)
	}
	line, err := p.nodeLine(j)
	if err != nil {
		return "", err
	}
	tool := p.nodeTool(j)
	start, err := p.nodeStart(j)
	if err != nil {
		return "", err
	}
	_, builds := j.Scripts["build"]
	image := fmt.Sprintf("node:%d-bookworm-slim", line)
	buildImage := image
	if p.nodeNeedsCompiler() {
		p.because("some packages are compiled when they are installed")
		buildImage = fmt.Sprintf("node:%d-bookworm", line)
	}

	var b strings.Builder
	fmt.Fprintf(&b, "FROM %s AS build\nWORKDIR /app\n", buildImage)
	if tool.setup != "" {
		b.WriteString("RUN " + tool.setup + "\n")
	}
	if len(j.Dependencies)+len(j.DevDependencies) > 0 || tool.lock != "" {
		install := tool.install
		if !builds {
			install += tool.production
		}
		fmt.Fprintf(&b, "COPY package.json%s ./\nRUN --mount=type=cache,target=%s %s\n", spaced(tool.lock)+p.nodeSettings(), tool.cache, install)
	}
	b.WriteString("COPY . .\n")
	if builds {
		b.WriteString("RUN " + tool.run + " build\n")
	}
	if start == "" { // a static site that Node.js only builds
		dir := siteOutput(j)
		p.because("it has a build script and nothing to start: a static site in %s", dir)
		return b.String() + "\n" + p.serveSite("COPY --from=build /app/"+dir+" /site\n", true), nil
	}
	if builds && tool.prune != "" {
		b.WriteString("RUN " + tool.prune + "\n")
	}
	fmt.Fprintf(&b, `
FROM %s
WORKDIR /app
ENV NODE_ENV=production PORT=%d
COPY --from=build /app ./
EXPOSE %d
USER 1000:1000
%s`, image, Port, Port, run(start))
	return b.String(), nil
}

func spaced(s string) string {
	if s == "" {
		return ""
	}
	return " " + s
}

// nodeTool is a package manager.
type nodeTool struct {
	lock, cache                            string
	setup, install, production, prune, run string
}

func (p *project) nodeTool(j packageJSON) nodeTool {
	switch {
	case p.has("pnpm-lock.yaml"):
		p.because("pnpm: there is pnpm-lock.yaml")
		version := "latest"
		if v, ok := strings.CutPrefix(j.PackageManager, "pnpm@"); ok {
			version, _, _ = strings.Cut(v, "+")
		}
		return nodeTool{lock: "pnpm-lock.yaml", cache: "/root/.local/share/pnpm/store", setup: "npm install --global pnpm@" + version,
			install: "pnpm install --frozen-lockfile", production: " --prod", prune: "pnpm prune --prod", run: "pnpm run"}
	case p.has("yarn.lock"):
		p.because("yarn: there is yarn.lock")
		if v, ok := strings.CutPrefix(j.PackageManager, "yarn@"); ok && !strings.HasPrefix(v, "1.") {
			return nodeTool{lock: "yarn.lock", cache: "/root/.yarn/berry/cache", setup: "corepack enable",
				install: "yarn install --immutable", run: "yarn run"}
		}
		return nodeTool{lock: "yarn.lock", cache: "/usr/local/share/.cache/yarn", install: "yarn install --frozen-lockfile",
			production: " --production", prune: "yarn install --production --ignore-scripts --prefer-offline", run: "yarn run"}
	}
	t := nodeTool{cache: "/root/.npm", install: "npm install --no-audit --no-fund", production: " --omit=dev", prune: "npm prune --omit=dev", run: "npm run"}
	for _, lock := range []string{"package-lock.json", "npm-shrinkwrap.json"} {
		if p.has(lock) {
			t.lock, t.install = lock, "npm ci --no-audit --no-fund"
			p.because("npm, with exact versions: there is %s", lock)
			return t
		}
	}
	return t
}

// nodeSettings lists settings of the package managers that installing needs.
func (p *project) nodeSettings() string {
	out := ""
	for _, f := range []string{".npmrc", ".yarnrc", ".yarnrc.yml", "pnpm-workspace.yaml"} {
		if p.has(f) {
			out += " " + f
		}
	}
	return out
}

// nodeNeedsCompiler tells whether a lock file names what node-gyp builds.
func (p *project) nodeNeedsCompiler() bool {
	for _, f := range []string{"package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "package.json"} {
		text, err := p.read(f)
		if err == nil && (strings.Contains(text, "node-gyp") || strings.Contains(text, "node-addon-api") || strings.Contains(text, `"nan"`) || strings.Contains(text, `"bindings"`)) {
			return true
		}
	}
	return p.has("binding.gyp")
}

// plainNode matches a start script that needs no shell and no npm in between.
var plainNode = regexp.MustCompile(`^node( [\w./@=:-]+)+$`)

// nodeStart returns the command that serves, "" for a static site that Node.js
// only builds.
func (p *project) nodeStart(j packageJSON) (string, error) {
	if p.web != "" {
		return p.web, nil
	}
	if s := strings.TrimSpace(j.Scripts["start"]); s != "" {
		p.because("it starts with the script \"start\": %s", s)
		if plainNode.MatchString(s) {
			return s, nil
		}
		return "npm start", nil
	}
	if _, builds := j.Scripts["build"]; builds && siteOutput(j) != "" {
		return "", nil
	}
	candidates := []string{"server.js", "index.js", "app.js", "main.js", "server.mjs", "index.mjs", "src/index.js", "src/server.js"}
	if main := strings.TrimPrefix(j.Main, "./"); main != "" {
		candidates = append([]string{main, main + ".js"}, candidates...)
	}
	if file := p.first(candidates); file != "" {
		p.because("it starts with %s", file)
		return "node " + file, nil
	}
	return "", fmt.Errorf("%w: package.json is there, but nothing says how to start: looked for scripts.start, main, server.js, index.js, app.js; add scripts.start to package.json", ErrUnknown)
}

// builders are the tools that make static sites, and the folder they write to.
var builders = []struct{ pkg, dir string }{
	{"@11ty/eleventy", "_site"}, {"astro", "dist"}, {"gatsby", "public"}, {"react-scripts", "build"},
	{"@vue/cli-service", "dist"}, {"@docusaurus/core", "build"}, {"vitepress", ".vitepress/dist"}, {"parcel", "dist"}, {"vite", "dist"},
	{"webpack", "dist"}, {"esbuild", "dist"},
}

// siteOutput returns where the build script of a static site writes, "" for
// none that is known.
func siteOutput(j packageJSON) string {
	for _, b := range builders {
		if j.uses(b.pkg) {
			return b.dir
		}
	}
	return ""
}

// nodeLine returns the major version of Node.js that the project asks for.
func (p *project) nodeLine(j packageJSON) (int, error) {
	for _, f := range []string{".nvmrc", ".node-version"} {
		text, err := p.read(f)
		if err != nil {
			return 0, err
		}
		if text = strings.TrimPrefix(strings.TrimSpace(text), "v"); text != "" {
			major, _, _ := strings.Cut(text, ".")
			if n, err := strconv.Atoi(major); err == nil {
				p.because("Node.js %d: %s says so", n, f)
				return n, nil
			}
		}
	}
	wanted := j.Engines["node"]
	if wanted == "" {
		return nodeLines[0], nil
	}
	for _, n := range nodeLines {
		if allows(wanted, n) {
			p.because("Node.js %d: engines in package.json allows %s", n, wanted)
			return n, nil
		}
	}
	return 0, fmt.Errorf("engines in package.json asks for Node.js %q; there is %v", wanted, nodeLines)
}

var comparator = regexp.MustCompile(`^(>=|<=|>|<|=|\^|~)?\s*v?(\d+|[xX*])(?:\.(\d+|[xX*]))?(?:\.(\d+|[xX*]))?`)

// allows tells whether an npm range may mean some release of a major version:
// alternatives by ||, each of comparators that must all hold.
func allows(wanted string, major int) bool {
	for _, alternative := range strings.Split(wanted, "||") {
		fields := strings.Fields(strings.NewReplacer(">= ", ">=", "<= ", "<=", "> ", ">", "< ", "<", "^ ", "^", "~ ", "~").Replace(alternative))
		if low, high, ok := strings.Cut(alternative, " - "); ok {
			fields = []string{">=" + strings.TrimSpace(low), "<=" + strings.TrimSpace(high)}
		}
		if len(fields) > 0 && !slices.ContainsFunc(fields, func(f string) bool { return !admits(f, major) }) {
			return true
		}
	}
	return false
}

func admits(field string, major int) bool {
	m := comparator.FindStringSubmatch(field)
	if m == nil {
		return field == "*" || field == "latest" || strings.HasPrefix(field, "lts")
	}
	if strings.ContainsAny(m[2], "xX*") {
		return true
	}
	n, err := strconv.Atoi(m[2])
	if err != nil {
		return false
	}
	whole := (m[3] == "" || m[3] == "0") && (m[4] == "" || m[4] == "0") // nothing of n comes before it
	switch m[1] {
	case ">=":
		return major >= n
	case ">":
		return major > n || major == n && m[3] != "" // of 20 there is no more, of 20.1 there is
	case "<":
		return major < n || major == n && !whole
	case "<=":
		return major <= n
	}
	return major == n
}
