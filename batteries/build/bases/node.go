package bases

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/semver"
)

// npmIndex is an npm package's list of versions (the registry's "packument").
type npmIndex struct {
	Versions map[string]struct {
		Dist struct {
			Tarball   string `json:"tarball"`
			Integrity string `json:"integrity"`
		} `json:"dist"`
	} `json:"versions"`
	Time map[string]time.Time `json:"time"`
}

// nodeMachine is how npm's packages of Node.js name this machine.
func nodeMachine() string {
	if runtime.GOARCH == "amd64" {
		return "x64"
	}
	return runtime.GOARCH
}

// prepareNode makes node:<version>[-<suite>][-slim] of the packages that hold
// Node.js's official binary, and of npm, yarn and corepack.
func prepareNode(ctx context.Context, k *kitchen, tag string) (dish, error) {
	asked, suite, slim := splitSuite(tag)
	if suite == "" {
		suite = k.DebianSuite
	}
	binary := "node-linux-" + nodeMachine()
	index, err := k.npm(ctx, binary)
	if err != nil {
		return dish{}, err
	}
	if asked == "lts" {
		asked = longTerm(index, k.now)
	}
	version, newest := index.newest(asked)
	if version == "" {
		return dish{}, errNoVersion("Node.js", asked, "up to "+newest)
	}
	major, _ := strconv.Atoi(strings.TrimPrefix(semver.Major("v"+version), "v"))
	parts := []npmPart{
		{pkg: binary, version: version, dir: "", only: []string{"bin/", "include/", "share/"}},
		{pkg: "npm", version: npmFor(major), dir: "lib/node_modules/npm/", links: map[string]string{"npm": "bin/npm-cli.js", "npx": "bin/npx-cli.js"}},
		{pkg: "yarn", version: "1", dir: "lib/node_modules/yarn/", links: map[string]string{"yarn": "bin/yarn.js", "yarnpkg": "bin/yarn.js"}},
	}
	if major < 25 { // Node.js left corepack out from 25 on
		parts = append(parts, npmPart{pkg: "corepack", version: "0", dir: "lib/node_modules/corepack/", links: map[string]string{"corepack": "dist/corepack.js"}})
	}
	if err := k.nodeTar(ctx, index, parts); err != nil {
		return dish{}, err
	}
	base, tools := "debian:"+suite+"-slim", ""
	if !slim {
		base = "debian:" + suite
		tools = `RUN apt-get update && apt-get install -y --no-install-recommends \
      ca-certificates curl g++ gcc git gnupg libc6-dev make openssh-client patch pkg-config procps python3 unzip wget xz-utils \
    && rm -rf /var/lib/apt/lists/*
`
	}
	return dish{
		from: fmt.Sprintf("Node.js %s of the npm registry %s, on Debian %s", version, k.NPMRegistry, suite),
		dockerfile: `FROM ` + base + `
RUN groupadd --gid 1000 node && useradd --uid 1000 --gid node --shell /bin/bash --create-home node
` + tools + `ADD node.tar /usr/local/
RUN ln -s node /usr/local/bin/nodejs && node --version && npm --version && rm -rf /root/.npm
ENV NODE_VERSION=` + version + `
CMD ["node"]
`,
	}, nil
}

// npmFor is the release line of npm that comes with a major version of Node.js.
func npmFor(major int) string {
	if major < 24 {
		return "10"
	}
	return "11"
}

// longTerm returns the newest major version with long-term support: the even
// ones, half a year after their first release.
func longTerm(index npmIndex, now time.Time) string {
	best := 0
	for v := range index.Versions {
		major, err := strconv.Atoi(strings.TrimPrefix(semver.Major("v"+v), "v"))
		first, ok := index.Time[fmt.Sprintf("%d.0.0", major)]
		if err == nil && ok && major%2 == 0 && major > best && now.Sub(first) > 182*24*time.Hour {
			best = major
		}
	}
	return strconv.Itoa(best)
}

// npm reads a package's index.
func (k *kitchen) npm(ctx context.Context, pkg string) (npmIndex, error) {
	var index npmIndex
	raw, err := k.text(ctx, k.NPMRegistry+"/"+pkg)
	if err != nil {
		return index, err
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return index, fmt.Errorf("read the versions of %s: %w", pkg, err)
	}
	return index, nil
}

// newest picks the newest release that asked allows: "20", "20.19", "latest".
func (x npmIndex) newest(asked string) (version, newest string) {
	for v := range x.Versions {
		if semver.Prerelease("v"+v) != "" {
			continue
		}
		if semver.Compare("v"+v, "v"+newest) > 0 || newest == "" {
			newest = v
		}
		fits := asked == "" || asked == "latest" || asked == "current" || v == asked || strings.HasPrefix(v, asked+".")
		if fits && (version == "" || semver.Compare("v"+v, "v"+version) > 0) {
			version = v
		}
	}
	return version, newest
}

// npmPart is a package that goes into the image, below /usr/local.
type npmPart struct {
	pkg, version string
	dir          string
	only         []string          // prefixes to keep; nil for all
	links        map[string]string // commands in bin, by name
}

// nodeTar downloads the packages and writes node.tar.
func (k *kitchen) nodeTar(ctx context.Context, first npmIndex, parts []npmPart) (err error) {
	f, err := os.Create(filepath.Join(k.dir, "node.tar"))
	if err != nil {
		return fmt.Errorf("keep Node.js: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	for i, p := range parts {
		index := first
		if i > 0 {
			if index, err = k.npm(ctx, p.pkg); err != nil {
				return err
			}
		}
		version, _ := index.newest(p.version)
		if version == "" {
			return errNoVersion(p.pkg, p.version, "another release line")
		}
		dist := index.Versions[version].Dist
		sum, err := sriSum(dist.Integrity)
		if err != nil {
			return fmt.Errorf("verify %s %s: %w", p.pkg, version, err)
		}
		k.say("downloading %s %s", p.pkg, version)
		file := filepath.Join(k.dir, "package.tgz")
		if err := k.file(ctx, dist.Tarball, file, -1, sum); err != nil {
			return err
		}
		if err := p.repack(file, w); err != nil {
			return fmt.Errorf("unpack %s %s: %w", p.pkg, version, err)
		}
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("unpack %s %s: %w", p.pkg, version, err)
		}
	}
	return w.Close()
}

// repack copies an npm tarball's files, which are below "package/", to where
// they belong, and adds the commands.
func (p npmPart) repack(file string, w *tar.Writer) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		_, name, ok := strings.Cut(h.Name, "/")
		if !ok || h.Typeflag != tar.TypeReg || path.Clean("/"+name) != "/"+name || !p.wants(name) {
			continue
		}
		mode := int64(0o644)
		if strings.HasPrefix(name, "bin/") || h.Mode&0o100 != 0 || isCommand(p.links, name) {
			mode = 0o755
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: p.dir + name, Mode: mode, Size: h.Size, ModTime: h.ModTime}); err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
	}
	for command, target := range p.links {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + command, Linkname: "../" + p.dir + target, Mode: 0o777}); err != nil {
			return err
		}
	}
	return nil
}

func (p npmPart) wants(name string) bool {
	for _, prefix := range p.only {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return p.only == nil
}

func isCommand(links map[string]string, name string) bool {
	for _, target := range links {
		if target == name {
			return true
		}
	}
	return false
}
