package deb

import (
	"archive/tar"
	"fmt"
	"io"
	"path"
	"strings"
)

// Root writes packages unpacked over one another as a tar archive: enough of a
// root file system for dpkg to run inside it and install the same packages in
// order. Documentation is left out.
//
// The file system has a merged /usr: /bin and its like are links into /usr,
// which every suite since bookworm demands.
type Root struct {
	out  *tar.Writer
	dirs map[string]bool
}

// merged are the directories that live in /usr.
var merged = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// dpkgFiles are what dpkg wants to find before its first package.
var dpkgFiles = []string{"var/lib/dpkg/status", "var/lib/dpkg/available"}

// NewRoot starts a root that is written to w. Close ends it.
func NewRoot(w io.Writer) (*Root, error) {
	r := &Root{out: tar.NewWriter(w), dirs: map[string]bool{}}
	for _, d := range []string{"usr", "var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/info", "var/lib/dpkg/updates",
		"var/lib/dpkg/triggers", "var/lib/dpkg/alternatives", "var/lib/dpkg/parts", "etc", "proc", "sys", "dev"} {
		if err := r.mkdir(d); err != nil {
			return nil, err
		}
	}
	for _, d := range merged[:5] { // libx32 is of no use on any machine of today
		if err := r.mkdir("usr/" + d); err != nil {
			return nil, err
		}
		if err := r.out.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: d, Linkname: "usr/" + d, Mode: 0o777}); err != nil {
			return nil, fmt.Errorf("write the root: %w", err)
		}
	}
	for _, f := range dpkgFiles {
		if err := r.WriteFile(f, nil, 0o644); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// WriteFile adds a file owned by root. Its directory must exist.
func (r *Root) WriteFile(name string, content []byte, mode int64) error {
	if err := r.out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	if _, err := r.out.Write(content); err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	return nil
}

func (r *Root) mkdir(name string) error {
	r.dirs[name] = true
	if err := r.out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}); err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	return nil
}

// Unpack adds the files of a .deb.
func (r *Root) Unpack(deb io.Reader) error {
	return Files(deb, func(h *tar.Header, content io.Reader) error {
		name, err := cleanName(h.Name)
		if err != nil {
			return err
		}
		if name == "." || documentation(name) {
			return nil
		}
		out := &tar.Header{
			Typeflag: h.Typeflag, Name: usrName(name), Linkname: h.Linkname, Mode: h.Mode,
			Uid: h.Uid, Gid: h.Gid, ModTime: h.ModTime, Size: h.Size,
		}
		switch h.Typeflag {
		case tar.TypeDir:
			// What is a link into /usr stays one.
			if r.dirs[out.Name] || isMerged(name) {
				return nil
			}
			r.dirs[out.Name] = true
			out.Name += "/"
		case tar.TypeLink:
			target, err := cleanName(h.Linkname)
			if err != nil {
				return err
			}
			out.Linkname = usrName(target)
		case tar.TypeSymlink:
			if isMerged(name) {
				return nil
			}
		case tar.TypeReg:
		default:
			return fmt.Errorf("%w: %q is of type %q", ErrFormat, h.Name, h.Typeflag)
		}
		if err := r.out.WriteHeader(out); err != nil {
			return fmt.Errorf("write %q: %w", out.Name, err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.Copy(r.out, content); err != nil {
				return fmt.Errorf("write %q: %w", out.Name, err)
			}
		}
		return nil
	})
}

// Close ends the archive, not the writer below it.
func (r *Root) Close() error {
	if err := r.out.Close(); err != nil {
		return fmt.Errorf("write the root: %w", err)
	}
	return nil
}

// cleanName returns a package's file name relative to the root. It refuses
// names that lead out of it.
func cleanName(name string) (string, error) {
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsRune(clean, 0) {
		return "", fmt.Errorf("%w: the file name %q leads out of the root", ErrFormat, name)
	}
	return clean, nil
}

// usrName says where a file is in a merged root.
func usrName(name string) string {
	first, _, deeper := strings.Cut(name, "/")
	if deeper && isMerged(first) {
		return "usr/" + name
	}
	return name
}

func isMerged(name string) bool {
	for _, d := range merged {
		if name == d {
			return true
		}
	}
	return false
}

// documentation tells whether a file is of no use to dpkg.
func documentation(name string) bool {
	for _, d := range []string{"usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/info/"} {
		if strings.HasPrefix(name, d) {
			return true
		}
	}
	return false
}
