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
	"slices"
	"strings"
)

// release is the release of Debian that the images are made of.
const release = "bookworm"

// packages are what the tests call inside of containers.
var packages = []string{
	"bash-static", "bind9-dnsutils", "busybox-static", "curl", "iproute2", "iputils-ping", "netcat-openbsd",
	"nginx-light", "procps", "socat", "util-linux",
}

// root is a small Debian, and what must be known of it to build on it.
type root struct {
	tar      string              // path of the archive, not compressed
	files    map[string][]byte   // content of etc/passwd and etc/group
	programs map[string]struct{} // names of programs on its search path
	busybox  string              // path of that program outside of the archive
	shell    string              // and of one that needs no library
	applets  []string            // programs that busybox can be
}

// makeRoot makes the root in dir, unless an earlier run did.
func makeRoot(ctx context.Context, dir, mirror string) (*root, error) {
	archive := filepath.Join(dir, release+".tar")
	if _, err := os.Stat(archive); errors.Is(err, fs.ErrNotExist) {
		if mirror == "" {
			if mirror, err = aptMirror(ctx); err != nil {
				return nil, err
			}
		}
		if err := bootstrap(ctx, archive, mirror); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, fmt.Errorf("look for %s: %w", archive, err)
	}
	r := &root{
		tar: archive, files: map[string][]byte{}, programs: map[string]struct{}{},
		busybox: filepath.Join(dir, "busybox"), shell: filepath.Join(dir, "bash"),
	}
	if err := r.read(); err != nil {
		return nil, fmt.Errorf("read %s: %w; remove the file to have it made again", archive, err)
	}
	applets, err := exec.CommandContext(ctx, r.busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("ask busybox what it can be: %w", err)
	}
	r.applets = slices.DeleteFunc(strings.Fields(string(applets)), func(a string) bool { return a == "busybox" })
	return r, nil
}

// bootstrap makes the archive with mmdebstrap.
func bootstrap(ctx context.Context, archive, mirror string) error {
	if err := os.MkdirAll(filepath.Dir(archive), 0o755); err != nil {
		return fmt.Errorf("make the images' Debian: %w", err)
	}
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
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the images' Debian %s from %s: %w\n%s", release, mirror, err, out)
	}
	if err := os.Rename(part, archive); err != nil {
		return fmt.Errorf("make the images' Debian: %w", err)
	}
	return nil
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
	kept := map[string]string{"busybox": r.busybox, "bash-static": r.shell}
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
			if to, ok := kept[path.Base(name)]; ok && h.Typeflag == tar.TypeReg {
				if err := extract(archive, to); err != nil {
					return err
				}
				delete(kept, path.Base(name))
			}
		}
	}
	if len(kept) > 0 || r.files["etc/passwd"] == nil || r.files["etc/group"] == nil {
		return errors.New("it lacks a program or the users")
	}
	return nil
}

// extract writes a program.
func extract(content io.Reader, to string) error {
	raw, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	return os.WriteFile(to, raw, 0o755)
}
