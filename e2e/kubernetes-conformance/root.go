package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// release is the release of Debian that the images are made of.
const release = "bookworm"

// packages are what the tests call inside of containers.
var packages = []string{
	"bind9-dnsutils", "curl", "iproute2", "iputils-ping", "netcat-openbsd",
	"nginx-light", "procps", "socat", "util-linux",
}

// root is a small Debian, and what must be known of it to build on it.
type root struct {
	tar      string              // path of the archive, not compressed
	files    map[string][]byte   // content of etc/passwd and etc/group
	programs map[string]struct{} // names of programs on its search path
}

// makeRoot makes the root in dir, unless an earlier run did.
func makeRoot(ctx context.Context, dir, mirror string) (*root, error) {
	archive := filepath.Join(dir, release+".tar")
	if _, err := os.Stat(archive); errors.Is(err, fs.ErrNotExist) {
		if err := bootstrap(ctx, archive, mirror); err != nil {
			return nil, fmt.Errorf("make the images' Debian %s from %s: %w", release, mirror, err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("look for %s: %w", archive, err)
	}
	r := &root{tar: archive, files: map[string][]byte{}, programs: map[string]struct{}{}}
	if err := r.read(); err != nil {
		return nil, fmt.Errorf("read %s: %w; remove the file to have it made again", archive, err)
	}
	return r, nil
}

// bootstrap makes the archive with mmdebstrap.
func bootstrap(ctx context.Context, archive, mirror string) error {
	args := []string{"--mode=root", "--variant=essential", "--format=tar", "--include=" + strings.Join(packages, ",")}
	for _, left := range []string{"doc", "info", "locale", "man", "zoneinfo"} {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/"+left+"/*")
	}
	// Whole or not at all: an interrupted run leaves no archive behind.
	part := archive + ".part"
	args = append(args,
		`--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*`,
		// The host's, which containers get anew.
		`--customize-hook=for f in resolv.conf hostname hosts; do : > "$1/etc/$f"; done`,
		release, part, mirror)
	if err := quietly(exec.CommandContext(ctx, "mmdebstrap", args...)); err != nil {
		return err
	}
	return os.Rename(part, archive)
}

// aptMirror returns the Debian archive that this host installs packages from.
func aptMirror(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(SITE) $(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("ask apt for its Debian mirror: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		site, component, _ := strings.Cut(strings.TrimSpace(line), " ")
		if component == "main" && path.Base(site) == "debian" {
			return site, nil
		}
	}
	return "", errors.New("ask apt for its Debian mirror: its sources name none: name one with -mirror")
}

// read fills in what the archive says.
func (r *root) read() error {
	f, err := os.Open(r.tar)
	if err != nil {
		return err
	}
	defer f.Close()
	for archive := tar.NewReader(f); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		if name == "etc/passwd" || name == "etc/group" {
			if r.files[name], err = io.ReadAll(archive); err != nil {
				return err
			}
		}
		if dir := path.Base(path.Dir(name)); dir == "bin" || dir == "sbin" {
			r.programs[path.Base(name)] = struct{}{}
		}
	}
	if r.files["etc/passwd"] == nil || r.files["etc/group"] == nil {
		return errors.New("it has no users")
	}
	return nil
}
