package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/emerald-platform/emerald/battery"
)

// tinyImage is a container image whose program exits with success at once: the
// smallest thing that shows that an image runs.
type tinyImage struct {
	architecture  string
	config, layer []byte
	manifest      v1.Manifest
}

// machine is what a program for one architecture is made of: the machine number
// of the ELF header, and exit(0).
type machine struct {
	number uint16
	exit   []byte
}

var machines = map[string]machine{
	"amd64": {62, []byte{
		0xb8, 60, 0, 0, 0, // mov eax, 60
		0x31, 0xff, // xor edi, edi
		0x0f, 0x05, // syscall
	}},
	"arm64": {183, []byte{
		0xa8, 0x0b, 0x80, 0x52, // mov w8, 93
		0x00, 0x00, 0x80, 0x52, // mov w0, 0
		0x01, 0x00, 0x00, 0xd4, // svc 0
	}},
}

// program returns a static Linux program in ELF format (System V ABI, chapters 4
// and 5) that exits with success.
func (m machine) program() []byte {
	const (
		address = 0x400000
		header  = 64
		segment = 56
	)
	size := uint64(header + segment + len(m.exit))
	var out bytes.Buffer
	out.Write([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}) // 64 bits, little endian
	for _, v := range []any{
		uint16(2), m.number, uint32(1), uint64(address + header + segment), // executable, entry point
		uint64(header), uint64(0), uint32(0), uint16(header), uint16(segment), uint16(1), uint16(64), uint16(0), uint16(0),
		uint32(1), uint32(5), uint64(0), uint64(address), uint64(address), size, size, uint64(0x10000), // loaded, read and execute
	} {
		_ = binary.Write(&out, binary.LittleEndian, v) // a buffer takes everything
	}
	out.Write(m.exit)
	return out.Bytes()
}

// newTinyImage makes an image for an architecture that differs from all others
// by the salt.
func newTinyImage(architecture, salt string) (*tinyImage, error) {
	m, ok := machines[architecture]
	if !ok {
		return nil, fmt.Errorf("make an image for architecture %q: only amd64 and arm64 are known", architecture)
	}
	var files, packed bytes.Buffer
	archive := tar.NewWriter(&files)
	for _, f := range []struct {
		name    string
		mode    int64
		content []byte
	}{{"exit", 0o755, m.program()}, {"salt", 0o644, []byte(salt)}} {
		if err := archive.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content))}); err != nil {
			return nil, fmt.Errorf("pack an image: %w", err)
		}
		if _, err := archive.Write(f.content); err != nil {
			return nil, fmt.Errorf("pack an image: %w", err)
		}
	}
	if err := archive.Close(); err != nil {
		return nil, fmt.Errorf("pack an image: %w", err)
	}
	zip := gzip.NewWriter(&packed)
	if _, err := zip.Write(files.Bytes()); err != nil {
		return nil, fmt.Errorf("pack an image: %w", err)
	}
	if err := zip.Close(); err != nil {
		return nil, fmt.Errorf("pack an image: %w", err)
	}
	config, err := json.Marshal(v1.Image{
		Platform: v1.Platform{Architecture: architecture, OS: "linux"},
		Config:   v1.ImageConfig{Entrypoint: []string{"/exit"}, User: fmt.Sprint(battery.UserID)},
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(files.Bytes())}},
	})
	if err != nil {
		return nil, fmt.Errorf("encode an image's configuration: %w", err)
	}
	describe := func(mediaType string, content []byte) v1.Descriptor {
		return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	}
	return &tinyImage{
		architecture: architecture, config: config, layer: packed.Bytes(),
		manifest: v1.Manifest{
			Config: describe(v1.MediaTypeImageConfig, config),
			Layers: []v1.Descriptor{describe(v1.MediaTypeImageLayerGzip, packed.Bytes())},
		},
	}, nil
}
