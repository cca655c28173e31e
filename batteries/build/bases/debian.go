package bases

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/emerald-platform/emerald/batteries/build/bases/deb"
)

// suites are the releases of Debian that can be made, newest last.
var suites = []struct{ number, name string }{
	{"12", "bookworm"}, {"13", "trixie"}, {"14", "forky"},
}

// splitSuite splits a tag such as "1.26-bookworm-slim" or "3.11-slim-bookworm"
// into its version, its suite ("" when it names none) and whether it is slim.
func splitSuite(tag string) (version, suite string, slim bool) {
	for again := true; again; {
		var found bool
		if tag, again = cutWord(tag, "slim"); again {
			slim = true
		}
		for _, s := range suites {
			if tag, found = cutWord(tag, s.name); found {
				suite, again = s.name, true
			}
		}
	}
	return tag, suite, slim
}

// cutWord removes the last of tag's words when it is word.
func cutWord(tag, word string) (string, bool) {
	if tag == word {
		return "", true
	}
	return strings.CutSuffix(tag, "-"+word)
}

// prepareDebian makes debian:<suite>[-slim] as Debian's own tools would: the
// required packages and apt, unpacked, then installed by dpkg inside.
func prepareDebian(ctx context.Context, k *kitchen, tag string) (dish, error) {
	asked, suite, slim := splitSuite(tag)
	if suite == "" {
		suite = asked
		for _, s := range suites {
			if asked == s.number {
				suite = s.name
			}
		}
		if asked == "latest" || asked == "" {
			suite = "stable"
		}
	} else if asked != "" {
		return dish{}, errNoVersion("Debian", tag, "bookworm, trixie, stable and their -slim")
	}
	a := &archive{kitchen: k}
	release, err := a.load(ctx, suite)
	switch {
	case isMissing(err):
		return dish{}, errNoVersion("Debian", tag, "bookworm, trixie, stable and their -slim")
	case err != nil:
		return dish{}, err
	}
	if !slices.ContainsFunc(suites, func(s struct{ number, name string }) bool { return s.name == release.Codename }) {
		return dish{}, errNoVersion("Debian", release.Codename, "bookworm, trixie, stable and their -slim")
	}
	essential, all, err := a.choose()
	if err != nil {
		return dish{}, err
	}
	if err := a.download(ctx, all); err != nil {
		return dish{}, err
	}
	if err := a.unpack(essential); err != nil {
		return dish{}, err
	}
	if err := a.configure(slim); err != nil {
		return dish{}, err
	}
	from := fmt.Sprintf("the Debian mirror %s (%s %s)", k.DebianMirror, release.Codename, release.Version)
	return dish{dockerfile: debianDockerfile(essential), from: from}, nil
}

// archive is the part of a Debian mirror that one image is made from.
type archive struct {
	*kitchen
	index *deb.Index
	parts []part
	base  map[string]string // by package file: URL of the archive it is in
}

// part is one line of the image's sources.list.
type part struct{ url, suite string }

const component = "main"

// load reads the suite's indexes, its updates and its security fixes. A mirror
// may lack the latter two.
func (a *archive) load(ctx context.Context, suite string) (*deb.Release, error) {
	a.index, a.base = deb.NewIndex(), map[string]string{}
	release, err := a.loadPart(ctx, part{a.DebianMirror, suite})
	if err != nil {
		return nil, err
	}
	for _, p := range []part{{a.DebianMirror, release.Codename + "-updates"}, {securityMirror(a.DebianMirror), release.Codename + "-security"}} {
		if _, err := a.loadPart(ctx, p); isMissing(err) {
			a.say("%s is not on the mirror; going on without it", p.suite)
		} else if err != nil {
			return nil, err
		}
	}
	a.parts[0].suite = release.Codename
	return release, nil
}

// securityMirror guesses the archive of security fixes beside a mirror, which
// is where deb.debian.org and its copies have it.
func securityMirror(mirror string) string {
	return strings.TrimSuffix(mirror, "/debian") + "/debian-security"
}

func (a *archive) loadPart(ctx context.Context, p part) (*deb.Release, error) {
	dists := p.url + "/dists/" + p.suite + "/"
	signed, err := a.text(ctx, dists+"InRelease")
	if err != nil {
		return nil, err
	}
	release, err := deb.ParseRelease(signed, a.now)
	if err != nil {
		return nil, fmt.Errorf("%sInRelease: %w", dists, err)
	}
	name, want, size, err := release.Index(component, runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	list := filepath.Join(a.dir, "Packages")
	// By its digest: the mirror may replace the list at any moment.
	for _, url := range []string{dists + path.Dir(name) + "/by-hash/SHA256/" + want, dists + name} {
		var sum checksum
		if sum, err = sha256Sum(want); err != nil {
			return nil, err
		}
		if err = a.file(ctx, url, list, size, sum); !isMissing(err) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	defer os.Remove(list)
	if err := a.read(list, path.Ext(name), p); err != nil {
		return nil, fmt.Errorf("%s%s: %w", dists, name, err)
	}
	a.parts = append(a.parts, p)
	return release, nil
}

// read adds the records of an index to what is known.
func (a *archive) read(list, format string, p part) error {
	f, err := os.Open(list)
	if err != nil {
		return err
	}
	defer f.Close()
	records, end, err := deb.Decompress(f, format)
	if err != nil {
		return err
	}
	defer end()
	return deb.ReadPackages(records, func(found deb.Package) {
		a.index.Add(found)
		a.base[found.Filename] = p.url
	})
}

// choose picks the packages: those that dpkg itself needs, and all of them.
func (a *archive) choose() (essential, all []deb.Package, err error) {
	names := a.index.Select(func(p deb.Package) bool { return p.Essential })
	if _, ok := a.index.Get("usr-is-merged"); ok {
		// The root is merged from the start, so the package that merges one
		// is not needed; chosen first, it is the alternative that counts.
		names = append([]string{"usr-is-merged"}, names...)
	}
	if essential, err = a.index.Closure(names...); err != nil {
		return nil, nil, err
	}
	names = append(names, a.index.Select(func(p deb.Package) bool { return p.Priority == "required" })...)
	names = append(names, "apt", "debian-archive-keyring", "tzdata")
	all, err = a.index.Closure(names...)
	return essential, all, err
}

// packagesDir holds the .deb files, inside the build context.
const packagesDir = "packages"

func debFile(p deb.Package) string { return p.Name + ".deb" }

// download gets the packages, a few at a time.
func (a *archive) download(ctx context.Context, packages []deb.Package) error {
	if err := os.Mkdir(filepath.Join(a.dir, packagesDir), 0o700); err != nil {
		return fmt.Errorf("keep the packages: %w", err)
	}
	var bytes int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(6)
	for _, p := range packages {
		bytes += p.Size
		g.Go(func() error {
			sum, err := sha256Sum(p.SHA256)
			if err != nil {
				return err
			}
			return a.file(ctx, a.base[p.Filename]+"/"+p.Filename, filepath.Join(a.dir, packagesDir, debFile(p)), p.Size, sum)
		})
	}
	a.say("downloading %d packages, %d MB", len(packages), bytes>>20)
	if err := g.Wait(); err != nil {
		return err
	}
	a.say("unpacking")
	return nil
}

// unpack writes root.tar: the packages that dpkg needs to run.
func (a *archive) unpack(packages []deb.Package) (err error) {
	f, err := os.Create(filepath.Join(a.dir, "root.tar"))
	if err != nil {
		return fmt.Errorf("keep the root: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buffered := bufio.NewWriterSize(f, 1<<20)
	root, err := deb.NewRoot(buffered)
	if err != nil {
		return err
	}
	for _, p := range packages {
		if err := unpackInto(root, filepath.Join(a.dir, packagesDir, debFile(p))); err != nil {
			return fmt.Errorf("unpack %q: %w", p.Name, err)
		}
	}
	return errors.Join(root.Close(), buffered.Flush())
}

func unpackInto(root *deb.Root, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return root.Unpack(f)
}

// configure writes the files that make a Debian into one for containers: the
// same that Debian's own images have.
func (a *archive) configure(slim bool) error {
	var sources bytes.Buffer
	for i, p := range a.parts {
		if i > 0 {
			sources.WriteByte('\n')
		}
		fmt.Fprintf(&sources, "Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
			p.url, p.suite, component)
	}
	files := map[string]string{
		"etc/apt/sources.list.d/debian.sources": sources.String(),
		// Packages are not kept, and lists not compressed twice.
		"etc/apt/apt.conf.d/docker-clean": `DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
`,
		"etc/apt/apt.conf.d/docker-gzip-indexes":        "Acquire::GzipIndexes \"true\";\n",
		"etc/apt/apt.conf.d/docker-no-languages":        "Acquire::Languages \"none\";\n",
		"etc/apt/apt.conf.d/docker-autoremove-suggests": "Apt::AutoRemove::SuggestsImportant \"false\";\n",
		// An image is pushed or thrown away: a crash in between costs nothing.
		"etc/dpkg/dpkg.cfg.d/docker-apt-speedup": "force-unsafe-io\n",
		// No service starts because its package was installed.
		"usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",
	}
	if slim {
		files["etc/dpkg/dpkg.cfg.d/docker"] = `path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/linda/*
path-exclude /usr/share/lintian/overrides/*
path-exclude /usr/share/locale/*
path-include /usr/share/locale/locale.alias
path-exclude /usr/share/man/*
`
	}
	for name, content := range files {
		file := filepath.Join(a.dir, "files", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return fmt.Errorf("write %q: %w", name, err)
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(content, "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(file, []byte(content), mode); err != nil {
			return fmt.Errorf("write %q: %w", name, err)
		}
	}
	return nil
}

// debianDockerfile installs the packages inside the unpacked root. dpkg heeds
// no Pre-Depends between the files it is given, so what it needs itself goes
// first and without asking, as mmdebstrap does it; files that are there
// already are simply written again.
func debianDockerfile(essential []deb.Package) string {
	var first strings.Builder
	for _, p := range essential {
		first.WriteString(" " + debFile(p))
	}
	return `FROM scratch AS unpacked
ADD root.tar /
COPY --link files/ /
RUN --network=none --mount=type=bind,source=` + packagesDir + `,target=/mnt/packages <<END
set -eu
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C.UTF-8
cd /mnt/packages
# What dpkg says is of use only when it fails.
quietly() { "$@" > /tmp/output 2>&1 || { cat /tmp/output; exit 1; }; }
quietly dpkg --install --force-depends` + first.String() + `
quietly dpkg --install --force-depends --skip-same-version *.deb
cd /
dpkg --audit
test -z "$(dpkg --audit)"
quietly apt-get check
rm -rf /var/log/* /var/cache/* /var/lib/apt/lists/* /var/lib/dpkg/*-old /etc/machine-id
mkdir -p /var/lib/apt/lists/partial /var/cache/apt/archives/partial
rm -f /etc/.pwd.lock /tmp/output
END
FROM scratch
COPY --from=unpacked / /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["bash"]
`
}
