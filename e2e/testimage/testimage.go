// Package testimage makes the container images that public test suites run, and
// puts them on a machine of the lab, where no registry can be asked for them.
//
// It promises that the same files give the same images, and that an archive
// holds each layer once, however many images share it.
//
// It refuses compressed layers: their digests would depend on the compressor.
package testimage

import (
	"io/fs"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one image for linux and this program's architecture.
type Image struct {
	// Names are full references with their tags. Each gets a manifest of its
	// own, because CRI reports one name for each manifest, not all of them.
	Names []string
	// Layers lie upon each other, the first lowest. There is at least one.
	Layers []Layer
	Config ocispec.ImageConfig
}

// Layer is a tar archive, or the files it consists of.
type Layer struct {
	// Tar is the path of an uncompressed archive on this host.
	Tar string
	// Files are the layer's when Tar is empty. A directory that none of them
	// is gets no entry: a lower layer, or the runtime, makes it.
	Files []File
}

// File is one file of a layer. It is a directory when Mode says so, a symbolic
// link when Link is not empty, and otherwise a regular file.
type File struct {
	// Path is relative to the image's root.
	Path string
	// Mode has fs.ModeDir for directories; fs.ModeSetuid, fs.ModeSetgid and
	// fs.ModeSticky count.
	Mode fs.FileMode
	// From is the path of the content on this host. Empty means Data.
	From string
	Data []byte
	Link string
	// UID and GID own the file. 0 is root.
	UID, GID int
}
