package selfimage

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// file is one file of an image, all of which belong to root.
type file struct {
	path string // absolute
	mode fs.FileMode
	data []byte
	from string // path on this machine, when data is nil
}

// image is what an image consists of. An image has one layer.
type image struct {
	repository string
	tag        string // empty: the image is named by its digest
	files      []file
	dirs       []file // that no file implies, or with another mode than 0755
	config     ocispec.ImageConfig
}

// directories returns every directory of the image, parents first.
func (i image) directories() []file {
	modes := map[string]fs.FileMode{}
	for _, f := range slices.Concat(i.files, i.dirs) {
		for d := path.Dir(f.path); d != "/"; d = path.Dir(d) {
			if _, ok := modes[d]; !ok {
				modes[d] = 0o755
			}
		}
	}
	for _, d := range i.dirs {
		modes[d.path] = d.mode
	}
	var out []file
	for p, mode := range modes {
		out = append(out, file{path: p, mode: mode})
	}
	slices.SortFunc(out, func(a, b file) int { return strings.Compare(a.path, b.path) })
	return out
}

// writeLayer writes the image's layer as an uncompressed tar archive. The same
// files give the same bytes, on every machine and at any time.
func (i image) writeLayer(w io.Writer) error {
	out := tar.NewWriter(w)
	put := func(f file, kind byte, size int64) error {
		name := strings.TrimPrefix(f.path, "/")
		mode := int64(f.mode.Perm())
		if f.mode&fs.ModeSticky != 0 {
			mode |= 0o1000
		}
		if kind == tar.TypeDir {
			name += "/"
		}
		return out.WriteHeader(&tar.Header{
			Typeflag: kind, Name: name, Mode: mode, Size: size,
			ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR,
		})
	}
	for _, d := range i.directories() {
		if err := put(d, tar.TypeDir, 0); err != nil {
			return err
		}
	}
	for _, f := range i.files {
		if err := writeMember(out, f, put); err != nil {
			return err
		}
	}
	return out.Close()
}

func writeMember(out io.Writer, f file, put func(file, byte, int64) error) error {
	if f.from == "" {
		if err := put(f, tar.TypeReg, int64(len(f.data))); err != nil {
			return err
		}
		_, err := out.Write(f.data)
		return err
	}
	in, err := os.Open(f.from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	if err := put(f, tar.TypeReg, st.Size()); err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, 1<<20))
	return err
}

// layerOf describes the image's layer.
func (i image) layerOf() (ocispec.Descriptor, error) {
	sum := sha256.New()
	size := new(counter)
	if err := i.writeLayer(io.MultiWriter(sum, size)); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("digest image %s: %w", i.repository, err)
	}
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer,
		Digest:    digest.NewDigest(digest.SHA256, sum),
		Size:      int64(*size),
	}, nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// blob is a piece of content with its description.
type blob struct {
	ocispec.Descriptor
	data []byte
}

// describe returns the image's configuration and manifest, OCI image-spec 1.1.
func (i image) describe(layer ocispec.Descriptor) (config, manifest blob, err error) {
	config, err = encode(ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   i.config,
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
	})
	if err != nil {
		return config, manifest, err
	}
	manifest, err = encode(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config.Descriptor,
		Layers:    []ocispec.Descriptor{layer},
	})
	return config, manifest, err
}

func encode(mediaType string, v any) (blob, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return blob{}, fmt.Errorf("encode %s: %w", mediaType, err)
	}
	return blob{data: data, Descriptor: ocispec.Descriptor{
		MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data)),
	}}, nil
}

func (b blob) reader() io.Reader { return bytes.NewReader(b.data) }
