package testimage_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/emerald-platform/emerald/e2e/testimage"
)

// read returns the members of a tar archive and their order.
func read(t *testing.T, r io.Reader) (content map[string][]byte, headers []*tar.Header) {
	t.Helper()
	content = map[string][]byte{}
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if err == io.EOF {
			return content, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		content[h.Name], headers = data, append(headers, h)
	}
}

func decode[T any](t *testing.T, raw []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%v: %q", err, raw)
	}
	return v
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	var rootfs bytes.Buffer
	root := tar.NewWriter(&rootfs)
	if err := root.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	if err := root.Close(); err != nil {
		t.Fatal(err)
	}
	lower := filepath.Join(dir, "rootfs.tar")
	if err := os.WriteFile(lower, rootfs.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	upper := testimage.Layer{Files: []testimage.File{
		{Path: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{Path: "/bin/program", Mode: fs.ModeSetuid | 0o755, From: program},
		{Path: "bin/again", Link: "program", Mode: 0o777},
		{Path: "home/file", Mode: 0o600, Data: []byte("data"), UID: 1000, GID: 50},
	}}
	images := []testimage.Image{
		{Names: []string{"example.test/one:1", "example.test/one:2"}, Layers: []testimage.Layer{{Tar: lower}, upper}, Config: ocispec.ImageConfig{Cmd: []string{"program"}}},
		{Names: []string{"example.test/two:1"}, Layers: []testimage.Layer{{Tar: lower}}},
	}
	var archive, again bytes.Buffer
	if err := testimage.Write(&archive, images...); err != nil {
		t.Fatal(err)
	}
	if err := testimage.Write(&again, images...); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(archive.Bytes(), again.Bytes()) {
		t.Error("writing the same images twice gave different archives")
	}

	blobs, members := read(t, &archive)
	if len(members) != len(blobs) {
		t.Errorf("%d members have %d names: something is in the archive twice", len(members), len(blobs))
	}
	blob := func(d ocispec.Descriptor) []byte {
		raw, ok := blobs["blobs/sha256/"+d.Digest.Encoded()]
		if !ok || digest.FromBytes(raw) != d.Digest || int64(len(raw)) != d.Size {
			t.Errorf("%s %s is not in the archive as described", d.MediaType, d.Digest)
		}
		return raw
	}
	index := decode[ocispec.Index](t, blobs["index.json"])
	var names []string
	manifests := map[string]ocispec.Manifest{}
	for _, m := range index.Manifests {
		name := m.Annotations["io.containerd.image.name"]
		names = append(names, name)
		manifests[name] = decode[ocispec.Manifest](t, blob(m))
		config := decode[ocispec.Image](t, blob(manifests[name].Config))
		if len(config.RootFS.DiffIDs) != len(manifests[name].Layers) {
			t.Errorf("%s: %d diff IDs for %d layers", name, len(config.RootFS.DiffIDs), len(manifests[name].Layers))
		}
		if len(config.Config.Env) != 1 || !strings.HasPrefix(config.Config.Env[0], "PATH=") {
			t.Errorf("%s: environment %q, want a PATH", name, config.Config.Env)
		}
		for _, l := range manifests[name].Layers {
			blob(l)
		}
	}
	if diff := cmp.Diff([]string{"example.test/one:1", "example.test/one:2", "example.test/two:1"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if index.Manifests[0].Digest == index.Manifests[1].Digest {
		t.Error("two names share a manifest")
	}
	if diff := cmp.Diff(manifests["example.test/one:1"].Layers[:1], manifests["example.test/two:1"].Layers); diff != "" {
		t.Errorf("the shared layer differs:\n%s", diff)
	}
	_, files := read(t, bytes.NewReader(blob(manifests["example.test/one:2"].Layers[1])))
	type entry struct {
		Name, Link string
		Type       byte
		Mode       int64
		Size       int64
		UID, GID   int
	}
	var got []entry
	for _, h := range files {
		got = append(got, entry{h.Name, h.Linkname, h.Typeflag, h.Mode, h.Size, h.Uid, h.Gid})
	}
	want := []entry{
		{"tmp/", "", tar.TypeDir, 0o1777, 0, 0, 0},
		{"bin/program", "", tar.TypeReg, 0o4755, 9, 0, 0},
		{"bin/again", "program", tar.TypeSymlink, 0o777, 0, 0, 0},
		{"home/file", "", tar.TypeReg, 0o600, 4, 1000, 50},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files of the layer (-want +got):\n%s", diff)
	}
}

func TestWriteRefuses(t *testing.T) {
	compressed := filepath.Join(t.TempDir(), "rootfs.tar.gz")
	if err := os.WriteFile(compressed, append([]byte{0x1f, 0x8b, 8}, make([]byte, 1000)...), 0o644); err != nil {
		t.Fatal(err)
	}
	layer := testimage.Layer{Files: []testimage.File{{Path: "a"}}}
	for name, image := range map[string]testimage.Image{
		"a compressed layer": {Names: []string{"a:1"}, Layers: []testimage.Layer{{Tar: compressed}}},
		"no tag":             {Names: []string{"host:5000/a"}, Layers: []testimage.Layer{layer}},
		"no name":            {Layers: []testimage.Layer{layer}},
		"no layer":           {Names: []string{"a:1"}},
		"a missing file":     {Names: []string{"a:1"}, Layers: []testimage.Layer{{Files: []testimage.File{{Path: "a", From: compressed + "x"}}}}},
	} {
		if err := testimage.Write(io.Discard, image); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
