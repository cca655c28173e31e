package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/google/go-cmp/cmp"
)

func TestCompareVersions(t *testing.T) {
	// Each is newer than the one before it.
	sorted := []string{
		"0~~", "0~~a", "0~", "0", "0.1~rc1-1", "0.1-1", "0.1-1+b1", "0.1-1+deb12u1", "0.1-2", "0.2", "0.10", "1.0~beta", "1.0", "1.0a", "1.0+x",
		"1:0.1", "1:1", "10:0",
	}
	for i, a := range sorted {
		for j, b := range sorted {
			if got := sign(CompareVersions(a, b)); got != sign(i-j) {
				t.Errorf("CompareVersions(%q, %q) = %d, want %d", a, b, got, sign(i-j))
			}
		}
	}
	for _, same := range [][2]string{{"1.0", "1.00"}, {"0:1", "1"}, {"1-0", "1"}} {
		if c := CompareVersions(same[0], same[1]); c != 0 {
			t.Errorf("CompareVersions(%q, %q) = %d, want 0", same[0], same[1], c)
		}
	}
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}

// FuzzCompareVersions compares with dpkg itself where there is one.
func FuzzCompareVersions(f *testing.F) {
	f.Add("1.0~rc1-1", "1.0-1+b1")
	f.Add("1:2.3-4ubuntu5", "2.10")
	dpkg, _ := exec.LookPath("dpkg")
	f.Fuzz(func(t *testing.T, a, b string) {
		got := sign(CompareVersions(a, b))
		if back := sign(CompareVersions(b, a)); back != -got {
			t.Fatalf("CompareVersions(%q, %q) = %d, but the other way round %d", a, b, got, back)
		}
		if dpkg == "" || !validVersion(a) || !validVersion(b) {
			return
		}
		op := map[int]string{-1: "lt", 0: "eq", 1: "gt"}[got]
		if err := exec.Command(dpkg, "--compare-versions", a, op, b).Run(); err != nil {
			t.Errorf("dpkg does not think that %q %s %q", a, op, b)
		}
	})
}

func validVersion(v string) bool {
	if v == "" || v[0] < '0' || v[0] > '9' || strings.Count(v, ":") > 0 || strings.HasSuffix(v, "-") {
		return false
	}
	return !strings.ContainsFunc(v, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.+-~", r)
	})
}

const sum64 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func record(name, version string, more ...string) string {
	return fmt.Sprintf("Package: %s\nVersion: %s\nFilename: pool/%s.deb\nSize: 10\nSHA256: %s\n%s\n", name, version, name, sum64, strings.Join(more, ""))
}

func TestReadPackages(t *testing.T) {
	index := record("libc6", "2.36-9", "Depends: libgcc-s1, libcrypt1 (>= 1:4.4.10-10~), debconf (>= 0.5) | debconf-2.0\n") +
		"Package: bash\nEssential: yes\nPriority: required\nVersion: 5.2\nDescription: a shell\n with two lines\nPre-Depends: libc6 (>= 2.36) [amd64], libtinfo6:any\nProvides: shell (= 1), posix\nFilename: pool/bash.deb\nSize: 12\nSHA256: " + sum64
	var got []Package
	if err := ReadPackages(strings.NewReader(index), func(p Package) { got = append(got, p) }); err != nil {
		t.Fatal(err)
	}
	want := []Package{
		{Name: "libc6", Version: "2.36-9", Depends: [][]string{{"libgcc-s1"}, {"libcrypt1"}, {"debconf", "debconf-2.0"}}, Filename: "pool/libc6.deb", SHA256: sum64, Size: 10},
		{Name: "bash", Version: "5.2", Priority: "required", Essential: true, Depends: [][]string{{"libc6"}, {"libtinfo6"}}, Provides: []string{"shell", "posix"}, Filename: "pool/bash.deb", SHA256: sum64, Size: 12},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, bad := range []string{"Package: a\n\n", record("a", ""), strings.Replace(record("a", "1"), "Size: 10", "Size: -1", 1), strings.Replace(record("a", "1"), "Size: 10", "Size: x", 1)} {
		if err := ReadPackages(strings.NewReader(bad), func(Package) {}); !errors.Is(err, ErrFormat) {
			t.Errorf("record %q: got error %v, want %v", bad, err, ErrFormat)
		}
	}
}

func FuzzReadPackages(f *testing.F) {
	f.Add(record("a", "1", "Depends: b | c\n"))
	f.Fuzz(func(t *testing.T, index string) {
		x := NewIndex()
		if ReadPackages(strings.NewReader(index), x.Add) != nil {
			return
		}
		names := x.Select(func(Package) bool { return true })
		got, err := x.Closure(names...)
		if err == nil && len(got) != len(names) {
			t.Errorf("the closure of all %d packages has %d", len(names), len(got))
		}
	})
}

func TestClosure(t *testing.T) {
	x := NewIndex()
	index := record("app", "1", "Depends: lib, editor, tool | other\n") + record("lib", "1", "Depends: app\n") + record("lib", "2", "Depends: base\n") + record("lib", "1.5") +
		record("nano", "1", "Priority: important\n", "Provides: editor\n") + record("emacs", "1", "Priority: optional\n", "Provides: editor\n") +
		record("base", "1") + record("other", "1") + record("broken", "1", "Depends: nowhere\n")
	if err := ReadPackages(strings.NewReader(index), x.Add); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		reason string
		args   []string
		want   []string
		err    error
	}{
		"providers": {"the most important provider, the alternative that exists, the newest lib", []string{"app"}, []string{"app=1", "base=1", "lib=2", "nano=1", "other=1"}, nil},
		"chosen":    {"a provider that was chosen already counts", []string{"emacs", "app"}, []string{"app=1", "base=1", "emacs=1", "lib=2", "other=1"}, nil},
		"unknown":   {"no such package", []string{"nothing"}, nil, ErrNotFound},
		"missing":   {"a dependency that nothing satisfies", []string{"broken"}, nil, ErrNotFound},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			packages, err := x.Closure(tc.args...)
			if !errors.Is(err, tc.err) {
				t.Fatalf("%s: got error %v, want %v", tc.reason, err, tc.err)
			}
			var got []string
			for _, p := range packages {
				got = append(got, p.Name+"="+p.Version)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s: -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func signed(t testing.TB, key *openpgp.Entity, text string) []byte {
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, key.PrivateKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestParseRelease(t *testing.T) {
	ours, err := openpgp.NewEntity("archive", "", "archive@example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := openpgp.NewEntity("other", "", "other@example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	text := "Suite: stable\nCodename: trixie\nVersion: 13.7\nValid-Until: Sun, 08 Nov 2026 00:00:00 UTC\nMD5Sum:\n x 1 y\nSHA256:\n " +
		sum64 + " 120 main/binary-amd64/Packages.gz\n " + sum64 + " 400 main/binary-amd64/Packages\n"
	keys := openpgp.EntityList{ours}

	r, err := parseRelease(signed(t, ours, text), keys, now)
	if err != nil {
		t.Fatal(err)
	}
	path, sum, size, err := r.Index("main", "amd64")
	if err != nil || path != "main/binary-amd64/Packages.gz" || sum != sum64 || size != 120 || r.Codename != "trixie" || r.Version != "13.7" {
		t.Errorf("got %+v, index %q %q %d %v", r, path, sum, size, err)
	}
	if _, _, _, err := r.Index("main", "riscv64"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an index that is not listed: got error %v, want %v", err, ErrNotFound)
	}

	tests := map[string]struct {
		reason string
		input  []byte
		now    time.Time
		want   error
	}{
		"unsigned": {"no signature at all", []byte(text), now, ErrNotTrusted},
		"other":    {"somebody else's signature", signed(t, other, text), now, ErrNotTrusted},
		"changed":  {"changed after signing", bytes.Replace(signed(t, ours, text), []byte("13.7"), []byte("13.8"), 1), now, ErrNotTrusted},
		"expired":  {"past Valid-Until", signed(t, ours, text), now.AddDate(0, 1, 0), ErrNotTrusted},
		"odd":      {"a sum that is none", signed(t, ours, "Codename: x\nSHA256:\n abc 1 y\n"), now, ErrFormat},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := parseRelease(tc.input, keys, tc.now); !errors.Is(err, tc.want) {
				t.Errorf("%s: got error %v, want %v", tc.reason, err, tc.want)
			}
		})
	}
}

// TestKeyring finds Debian's own keys in what is embedded.
func TestKeyring(t *testing.T) {
	keys, err := openpgp.ReadKeyRing(bytes.NewReader(keyring))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, k := range keys {
		for name := range k.Identities {
			names = append(names, name)
		}
	}
	for _, want := range []string{"(12/bookworm)", "(13/trixie)"} {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, want) }) {
			t.Errorf("no key for %s among %q", want, names)
		}
	}
}

// file is one entry of a package made for a test.
type file struct {
	name, link, content string
	kind                byte
}

// makeDeb packs a .deb whose data is compressed with gzip.
func makeDeb(t testing.TB, files ...file) []byte {
	var data bytes.Buffer
	z := gzip.NewWriter(&data)
	w := tar.NewWriter(z)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: f.kind, Name: f.name, Linkname: f.link, Mode: 0o755, Size: int64(len(f.content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	out.WriteString("!<arch>\n")
	for _, m := range []struct {
		name string
		body []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar.gz", []byte("odd")}, {"data.tar.gz", data.Bytes()}} {
		fmt.Fprintf(&out, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", m.name, 0, 0, 0, 0o644, len(m.body))
		out.Write(m.body)
		if len(m.body)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	return out.Bytes()
}

func TestUnpack(t *testing.T) {
	var out bytes.Buffer
	root, err := NewRoot(&out)
	if err != nil {
		t.Fatal(err)
	}
	before := len(entries(t, out.Bytes()))
	deb := makeDeb(t,
		file{name: "./", kind: tar.TypeDir}, file{name: "./bin/", kind: tar.TypeDir},
		file{name: "./bin/sh", kind: tar.TypeReg, content: "#!"}, file{name: "./bin/dash", kind: tar.TypeLink, link: "./bin/sh"},
		file{name: "./usr/share/doc/dash/README", kind: tar.TypeReg, content: "read"}, file{name: "./lib", kind: tar.TypeSymlink, link: "usr/lib"},
		file{name: "./etc/x/", kind: tar.TypeDir}, file{name: "./usr/bin/ash", kind: tar.TypeSymlink, link: "../../bin/sh"},
	)
	if err := root.Unpack(bytes.NewReader(deb)); err != nil {
		t.Fatal(err)
	}
	if err := root.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"usr/bin/sh", "usr/bin/dash -> usr/bin/sh", "etc/x/", "usr/bin/ash -> ../../bin/sh"}
	if diff := cmp.Diff(want, entries(t, out.Bytes())[before:]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestUnpackRefuses(t *testing.T) {
	tests := map[string][]byte{
		"traversal":  makeDeb(t, file{name: "./../etc/shadow", kind: tar.TypeReg}),
		"hard link":  makeDeb(t, file{name: "./a", kind: tar.TypeLink, link: "../../etc/shadow"}),
		"device":     makeDeb(t, file{name: "./dev/mem", kind: tar.TypeChar}),
		"no archive": []byte("PK\x03\x04"),
		"no data":    []byte("!<arch>\n"),
		"cut off":    makeDeb(t)[:100],
	}
	for name, deb := range tests {
		t.Run(name, func(t *testing.T) {
			root, err := NewRoot(io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if err := root.Unpack(bytes.NewReader(deb)); !errors.Is(err, ErrFormat) {
				t.Errorf("got error %v, want %v", err, ErrFormat)
			}
		})
	}
}

// entries lists a tar archive.
func entries(t testing.TB, b []byte) []string {
	var out []string
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err != nil { // also the missing end of an archive that is being written
			return out
		}
		s := h.Name
		if h.Linkname != "" {
			s += " -> " + h.Linkname
		}
		out = append(out, s)
	}
}

// FuzzUnpack checks that no package, however odd, makes a root with a file
// outside it.
func FuzzUnpack(f *testing.F) {
	f.Add(makeDeb(f, file{name: "./bin/sh", kind: tar.TypeReg, content: "x"}))
	f.Add(makeDeb(f, file{name: "../x", kind: tar.TypeReg}))
	f.Add([]byte("!<arch>\ndata.tar        0           0     0     644     0         `\n"))
	f.Fuzz(func(t *testing.T, deb []byte) {
		var out bytes.Buffer
		root, err := NewRoot(&out)
		if err != nil {
			t.Fatal(err)
		}
		if root.Unpack(bytes.NewReader(deb)) != nil {
			return
		}
		for _, e := range entries(t, out.Bytes()) {
			name, _, _ := strings.Cut(e, " -> ")
			if strings.HasPrefix(name, "/") || strings.HasPrefix(name, "../") || strings.Contains(name, "/../") {
				t.Errorf("a file outside the root: %q", e)
			}
		}
	})
}

// FuzzParseRelease changes what a mirror sends: without the archive's signature
// below it, nothing in it counts.
func FuzzParseRelease(f *testing.F) {
	ours, err := openpgp.NewEntity("archive", "", "archive@example.org", nil)
	if err != nil {
		f.Fatal(err)
	}
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	good := "Suite: stable\nCodename: trixie\nSHA256:\n " + sum64 + " 120 main/binary-amd64/Packages.gz\n"
	message := func(text string) []byte {
		var out bytes.Buffer
		w, err := clearsign.Encode(&out, ours.PrivateKey, nil)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			f.Fatal(err)
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		return out.Bytes()
	}
	signed := message(good)
	f.Add(signed, good)
	f.Add([]byte(good), "SHA256:\n a -1 b\nCodename: x")
	f.Fuzz(func(t *testing.T, raw []byte, text string) {
		r, err := parseRelease(raw, openpgp.EntityList{ours}, now)
		if err == nil && r.Codename != "trixie" {
			t.Errorf("%q was believed", raw)
		}
		// And what the archive itself signs may be anything.
		if r, err := parseRelease(message(text), openpgp.EntityList{ours}, now); err == nil {
			if _, _, size, err := r.Index("main", "amd64"); err == nil && size < 0 {
				t.Errorf("%q has an index of %d bytes", text, size)
			}
		}
	})
}
