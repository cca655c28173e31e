package selfimage

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func program(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "emerald")
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLayer(t *testing.T) {
	i := selfImage(program(t, "program"), []byte("bundle"))
	var layer bytes.Buffer
	if err := i.writeLayer(&layer); err != nil {
		t.Fatal(err)
	}
	type member struct {
		Mode    int64
		Content string
	}
	got := map[string]member{}
	for r := tar.NewReader(&layer); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s: owner %d:%d, time %v", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		got[h.Name] = member{h.Mode, string(data)}
	}
	want := map[string]member{
		"emerald": {0o755, "program"}, "etc/": {Mode: 0o755}, "etc/ssl/": {Mode: 0o755}, "etc/ssl/certs/": {Mode: 0o755},
		"etc/ssl/certs/ca-certificates.crt": {0o644, "bundle"}, "tmp/": {Mode: 0o1777},
		"etc/passwd": {0o644, "root:x:0:0:root:/:/\nnonroot:x:65532:65532:nonroot:/:/\n"},
		"etc/group":  {0o644, "root:x:0:\nnonroot:x:65532:\n"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestSameContentSameName checks that machines agree on the image's name.
func TestSameContentSameName(t *testing.T) {
	name := func(content, bundle string) string {
		i := selfImage(program(t, content), []byte(bundle))
		layer, err := i.layerOf()
		if err != nil {
			t.Fatal(err)
		}
		_, manifest, err := i.describe(layer)
		if err != nil {
			t.Fatal(err)
		}
		return manifest.Digest.String()
	}
	first := name("a", "b")
	if again := name("a", "b"); again != first {
		t.Errorf("the same content is %s and %s", first, again)
	}
	if name("x", "b") == first || name("a", "x") == first {
		t.Error("other content has the same name")
	}
}

func TestCachedLayer(t *testing.T) {
	path, cache := program(t, "one"), filepath.Join(t.TempDir(), "node", "cache.json")
	layer := func(bundle string) string {
		t.Helper()
		i := selfImage(path, []byte(bundle))
		got, err := i.cachedLayer(cache)
		if err != nil {
			t.Fatal(err)
		}
		want, err := i.layerOf()
		if err != nil {
			t.Fatal(err)
		}
		if got.Digest != want.Digest || got.Size != want.Size {
			t.Errorf("cache says %s %d, it is %s %d", got.Digest, got.Size, want.Digest, want.Size)
		}
		return got.Digest.String()
	}
	first := layer("b")
	layer("b")
	layer("another bundle")
	if err := os.Truncate(cache, 10); err != nil {
		t.Fatal(err)
	}
	if layer("b") != first {
		t.Error("a broken cache changes the answer")
	}
	// A new program at the same path.
	if err := os.WriteFile(path, []byte("two"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if layer("b") == first {
		t.Error("the old program's digest")
	}
}

func TestWriteLinksTheProgram(t *testing.T) {
	path, root := program(t, "program"), t.TempDir()
	i := selfImage(path, []byte("bundle"))
	if err := i.write(root); err != nil {
		t.Fatal(err)
	}
	a, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.Stat(filepath.Join(root, "emerald"))
	if err != nil || !os.SameFile(a, b) {
		t.Errorf("the program was copied, not linked: %v", err)
	}
	if st, err := os.Stat(filepath.Join(root, "tmp")); err != nil || st.Mode()&os.ModeSticky == 0 || st.Mode().Perm() != 0o777 {
		t.Errorf("/tmp: %v %v", st, err)
	}
	// One that others may not run must not be linked.
	closed := program(t, "program")
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if err := selfImage(closed, nil).write(other); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(other, "emerald")); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("a closed program: %v %v", st, err)
	}
}
