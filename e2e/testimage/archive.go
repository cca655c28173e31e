package testimage

import (
	"archive/tar"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// nameAnnotation is how containerd finds an image's full name in an archive.
const nameAnnotation = "io.containerd.image.name"

// searchPath is what a shell and exec look for programs in, as upstream's images have it.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Write writes images as one archive, an OCI image layout (image-spec 1.1) in a
// tar file. An image without environment gets the usual PATH. Files on disk
// must not change meanwhile.
func Write(w io.Writer, images ...Image) error {
	a := archive{out: tar.NewWriter(w), written: map[digest.Digest]bool{}, tars: map[string]ocispec.Descriptor{}}
	if err := a.put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return fmt.Errorf("write image archive: %w", err)
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, image := range images {
		if len(image.Names) == 0 || len(image.Layers) == 0 {
			return fmt.Errorf("write image archive: image %q has %d names and %d layers, and takes one of each", image.Names, len(image.Names), len(image.Layers))
		}
		manifests, err := a.image(image)
		if err != nil {
			return fmt.Errorf("write image %q: %w", image.Names[0], err)
		}
		index.Manifests = append(index.Manifests, manifests...)
	}
	raw, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("write image archive: %w", err)
	}
	if err := cmp.Or(a.put(ocispec.ImageIndexFile, raw), a.out.Close()); err != nil {
		return fmt.Errorf("write image archive: %w", err)
	}
	return nil
}

// archive is one that is being written.
type archive struct {
	out     *tar.Writer
	written map[digest.Digest]bool
	tars    map[string]ocispec.Descriptor // of layers on disk: reading one again takes long
}

// image writes all of an image's parts and returns its manifests, one per name.
func (a *archive) image(i Image) ([]ocispec.Descriptor, error) {
	var layers []ocispec.Descriptor
	var diffs []digest.Digest
	for _, l := range i.Layers {
		d, err := a.layer(l)
		if err != nil {
			return nil, err
		}
		layers, diffs = append(layers, d), append(diffs, d.Digest)
	}
	if len(i.Config.Env) == 0 {
		i.Config.Env = []string{searchPath}
	}
	platform := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	var out []ocispec.Descriptor
	for _, name := range i.Names {
		colon := strings.LastIndex(name, ":")
		if colon < strings.LastIndex(name, "/") || colon < 0 {
			return nil, fmt.Errorf("name %q has no tag", name)
		}
		c := i.Config
		c.Labels = maps.Clone(c.Labels)
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		// What makes its manifest differ from those of its other names.
		c.Labels[ocispec.AnnotationRefName] = name
		config, err := a.object(ocispec.MediaTypeImageConfig, ocispec.Image{
			Platform: platform, Config: c, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: diffs},
		})
		if err != nil {
			return nil, err
		}
		manifest, err := a.object(ocispec.MediaTypeImageManifest, ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers,
		})
		if err != nil {
			return nil, err
		}
		manifest.Platform = &platform
		manifest.Annotations = map[string]string{nameAnnotation: name, ocispec.AnnotationRefName: name[colon+1:]}
		out = append(out, manifest)
	}
	return out, nil
}

// layer writes a layer, unless the archive has it.
func (a *archive) layer(l Layer) (ocispec.Descriptor, error) {
	d, known := a.tars[l.Tar]
	if !known {
		sum, size := digest.Canonical.Digester(), new(length)
		if err := l.write(io.MultiWriter(sum.Hash(), size)); err != nil {
			return d, err
		}
		d = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: sum.Digest(), Size: int64(*size)}
		if l.Tar != "" {
			a.tars[l.Tar] = d
		}
	}
	if a.written[d.Digest] {
		return d, nil
	}
	a.written[d.Digest] = true
	if err := a.header(blobPath(d.Digest), d.Size); err != nil {
		return d, err
	}
	return d, l.write(a.out)
}

// object writes v as JSON and returns its description.
func (a *archive) object(mediaType string, v any) (ocispec.Descriptor, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if a.written[d.Digest] {
		return d, nil
	}
	a.written[d.Digest] = true
	return d, a.put(blobPath(d.Digest), raw)
}

func blobPath(d digest.Digest) string {
	return strings.Join([]string{ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded()}, "/")
}

func (a *archive) put(name string, data []byte) error {
	if err := a.header(name, int64(len(data))); err != nil {
		return err
	}
	_, err := a.out.Write(data)
	return err
}

func (a *archive) header(name string, size int64) error {
	return a.out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size})
}

// length counts what is written to it.
type length int64

func (n *length) Write(p []byte) (int, error) {
	*n += length(len(p))
	return len(p), nil
}

// errCompressed says why an archive is refused.
var errCompressed = errors.New("not an uncompressed tar archive: unpack it first")

// write writes the layer's bytes, which are the same each time.
func (l Layer) write(w io.Writer) error {
	if l.Tar != "" {
		return copyTar(w, l.Tar)
	}
	out := tar.NewWriter(w)
	for _, f := range l.Files {
		if err := f.write(out); err != nil {
			return fmt.Errorf("add %q: %w", f.Path, err)
		}
	}
	return out.Close()
}

// copyTar copies an archive after a look at its first header.
func copyTar(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if _, err := tar.NewReader(bytes.NewReader(head[:n])).Next(); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("read %s: %w", path, errCompressed)
	}
	if _, err := w.Write(head[:n]); err != nil {
		return err
	}
	if _, err := io.Copy(w, f); err != nil {
		return fmt.Errorf("copy %s: %w", path, err)
	}
	return nil
}

func (f File) write(out *tar.Writer) error {
	h := &tar.Header{Name: strings.TrimPrefix(f.Path, "/"), Mode: int64(f.Mode.Perm()), Uid: f.UID, Gid: f.GID, Size: int64(len(f.Data))}
	for bit, mode := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if f.Mode&bit != 0 {
			h.Mode |= mode
		}
	}
	switch {
	case f.Mode.IsDir():
		h.Typeflag, h.Name, h.Size = tar.TypeDir, strings.TrimSuffix(h.Name, "/")+"/", 0
		return out.WriteHeader(h)
	case f.Link != "":
		h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, f.Link, 0
		return out.WriteHeader(h)
	}
	data := io.Reader(bytes.NewReader(f.Data))
	if f.From != "" {
		in, err := os.Open(f.From)
		if err != nil {
			return err
		}
		defer in.Close()
		st, err := in.Stat()
		if err != nil {
			return err
		}
		data, h.Size = in, st.Size()
	}
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(out, data)
	return err
}
