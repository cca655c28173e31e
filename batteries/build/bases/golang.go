package bases

import (
	"archive/tar"
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/mod/semver"
	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/dirhash"
)

const toolchain = "golang.org/toolchain"

// prepareGo makes golang:<version>[-<suite>] from the toolchain module that
// the go command itself downloads to change its version.
func prepareGo(ctx context.Context, k *kitchen, tag string) (dish, error) {
	asked, suite, slim := splitSuite(tag)
	if slim {
		return dish{}, errNoVersion("Go", tag, "the same name without -slim")
	}
	if suite == "" {
		suite = k.DebianSuite
	}
	proxy, list, err := k.goVersions(ctx)
	if err != nil {
		return dish{}, err
	}
	version, newest := newestGo(list, asked)
	if version == "" {
		return dish{}, errNoVersion("Go", asked, "up to "+newest)
	}
	if err := k.goToolchain(ctx, proxy, version); err != nil {
		return dish{}, err
	}
	number := strings.TrimPrefix(version, "go")
	return dish{
		from: fmt.Sprintf("Go %s of the module proxy %s, on Debian %s", number, proxy, suite),
		dockerfile: `FROM debian:` + suite + `
RUN apt-get update && apt-get install -y --no-install-recommends \
      ca-certificates curl g++ gcc git gnupg libc6-dev make openssh-client patch pkg-config procps unzip wget \
    && rm -rf /var/lib/apt/lists/*
ADD go.tar /usr/local/
ENV GOTOOLCHAIN=local GOLANG_VERSION=` + number + ` GOPATH=/go PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN mkdir -p /go/src /go/bin && chmod -R 1777 /go && go version
WORKDIR /go
CMD ["bash"]
`,
	}, nil
}

// goVersions returns the first proxy of GOPROXY that answers, and the versions
// of the toolchain that it has.
func (k *kitchen) goVersions(ctx context.Context) (proxy string, versions []string, err error) {
	var errs []error
	for _, p := range strings.FieldsFunc(k.GoProxy, func(r rune) bool { return r == ',' || r == '|' }) {
		p = strings.TrimRight(strings.TrimSpace(p), "/")
		if p == "direct" || p == "off" || p == "" {
			continue
		}
		list, err := k.text(ctx, p+"/"+toolchain+"/@v/list")
		if err != nil {
			errs = append(errs, err)
			continue
		}
		return p, strings.Fields(string(list)), nil
	}
	if len(errs) == 0 {
		return "", nil, fmt.Errorf("GOPROXY is %q, which names no proxy to get Go from", k.GoProxy)
	}
	return "", nil, fmt.Errorf("list Go's versions: %w", errors.Join(errs...))
}

// newestGo picks of module versions such as v0.0.1-go1.26.8.linux-amd64 the
// newest Go for this machine that the tag allows ("1.26", "1", "1.26.8",
// "latest"; rc only when named). newest is the newest there is.
func newestGo(list []string, asked string) (version, newest string) {
	platform := "." + runtime.GOOS + "-" + runtime.GOARCH
	for _, v := range list {
		v, ok := strings.CutSuffix(strings.TrimPrefix(v, "v0.0.1-"), platform)
		if !ok || !strings.HasPrefix(v, "go") {
			continue
		}
		number := v[2:]
		if strings.ContainsAny(number, "rb") && number != asked { // release candidates, betas
			continue
		}
		if semver.Compare(goSemver(v), goSemver(newest)) > 0 {
			newest = v
		}
		fits := asked == "" || asked == "latest" || number == asked || strings.HasPrefix(number, asked+".")
		if fits && semver.Compare(goSemver(v), goSemver(version)) > 0 {
			version = v
		}
	}
	return version, newest
}

// goSemver turns go1.26rc1 into v1.26.0-rc1 and "" into "".
func goSemver(v string) string {
	n := strings.TrimPrefix(v, "go")
	if n == "" {
		return ""
	}
	if i := strings.IndexAny(n, "rb"); i > 0 {
		return "v" + n[:i] + ".0-" + n[i:]
	}
	return "v" + n
}

// goToolchain downloads a toolchain, verifies it with Go's checksum database
// as the go command would, and writes go.tar with the folder go in it.
func (k *kitchen) goToolchain(ctx context.Context, proxy, version string) error {
	module := "v0.0.1-" + version + "." + runtime.GOOS + "-" + runtime.GOARCH
	want, err := k.goSum(ctx, proxy, module)
	if err != nil {
		return err
	}
	file := filepath.Join(k.dir, "toolchain.zip")
	url := proxy + "/" + toolchain + "/@v/" + module + ".zip"
	k.say("downloading %s", url)
	body, err := k.open(ctx, url)
	if err != nil {
		return err
	}
	err = writeAll(file, body)
	body.Close()
	if err != nil {
		return fmt.Errorf("download %s: %w", url, err)
	}
	defer os.Remove(file)
	got, err := dirhash.HashZip(file, dirhash.Hash1)
	if err != nil {
		return fmt.Errorf("verify %s: %w", url, err)
	}
	if got != want {
		return fmt.Errorf("verify %s: it is %s, but Go's checksum database says %s", url, got, want)
	}
	return toolchainTar(file, toolchain+"@"+module+"/", filepath.Join(k.dir, "go.tar"))
}

func writeAll(file string, r io.Reader) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, r)
	return err
}

// toolchainTar repacks a toolchain's module zip. Module zips carry no modes
// and no nested go.mod files; cmd/go restores both, and so does this.
func toolchainTar(zipFile, prefix, out string) (err error) {
	z, err := zip.OpenReader(zipFile)
	if err != nil {
		return fmt.Errorf("read the toolchain: %w", err)
	}
	defer z.Close()
	f, err := os.Create(out)
	if err != nil {
		return fmt.Errorf("keep the toolchain: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	for _, file := range z.File {
		name, ok := strings.CutPrefix(file.Name, prefix)
		if !ok || strings.HasSuffix(name, "/") || path.Clean("/"+name) != "/"+name {
			return fmt.Errorf("read the toolchain: odd file name %q", file.Name)
		}
		if path.Base(name) == "_go.mod" {
			name = path.Join(path.Dir(name), "go.mod")
		}
		mode := int64(0o644)
		if strings.HasPrefix(name, "bin/") || strings.HasPrefix(name, "pkg/tool/") || strings.HasSuffix(name, ".bash") {
			mode = 0o755
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "go/" + name, Mode: mode, Size: int64(file.UncompressedSize64), ModTime: file.Modified}); err != nil {
			return fmt.Errorf("keep the toolchain: %w", err)
		}
		r, err := file.Open()
		if err != nil {
			return fmt.Errorf("read the toolchain: %w", err)
		}
		_, err = io.Copy(w, r)
		if err = errors.Join(err, r.Close()); err != nil {
			return fmt.Errorf("keep the toolchain: %w", err)
		}
	}
	return w.Close()
}

// sumKey is the public key of sum.golang.org, as cmd/go knows it.
const sumKey = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"

// goSum looks up a toolchain's h1: hash in Go's checksum database, through the
// proxy where it offers that.
func (k *kitchen) goSum(ctx context.Context, proxy, module string) (string, error) {
	var errs []error
	for _, base := range []string{proxy + "/sumdb/sum.golang.org", "https://sum.golang.org"} {
		lines, err := sumdb.NewClient(&sumOps{ctx: ctx, kitchen: k, base: base, files: map[string][]byte{}}).Lookup(toolchain, module)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		prefix := toolchain + " " + module + " "
		if i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, prefix) }); i >= 0 {
			return strings.TrimPrefix(lines[i], prefix), nil
		}
		errs = append(errs, fmt.Errorf("%s does not know %s", base, module))
	}
	return "", fmt.Errorf("look up Go's checksum: %w", errors.Join(errs...))
}

// sumOps is what sumdb.Client asks of its surroundings. It remembers nothing
// from one lookup to the next.
type sumOps struct {
	*kitchen
	ctx   context.Context
	base  string
	files map[string][]byte
}

// ReadRemote implements sumdb.ClientOps.
func (o *sumOps) ReadRemote(path string) ([]byte, error) { return o.text(o.ctx, o.base+path) }

// ReadConfig implements sumdb.ClientOps.
func (o *sumOps) ReadConfig(file string) ([]byte, error) {
	if file == "key" {
		return []byte(sumKey), nil
	}
	return o.files[file], nil // an empty "latest" is how a client starts
}

// WriteConfig implements sumdb.ClientOps.
func (o *sumOps) WriteConfig(file string, _, content []byte) error {
	o.files[file] = content
	return nil
}

// ReadCache implements sumdb.ClientOps.
func (o *sumOps) ReadCache(string) ([]byte, error) { return nil, os.ErrNotExist }

// WriteCache implements sumdb.ClientOps.
func (o *sumOps) WriteCache(string, []byte) {}

// Log implements sumdb.ClientOps.
func (o *sumOps) Log(string) {}

// SecurityError implements sumdb.ClientOps; the same text is in the lookup's
// error.
func (o *sumOps) SecurityError(string) {}
