package deb

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Files calls each for every file of a .deb (deb(5)), with a reader of its
// content. It ends at the first error that each returns.
func Files(r io.Reader, each func(*tar.Header, io.Reader) error) error {
	data, closeData, err := dataMember(r)
	if err != nil {
		return err
	}
	defer closeData()
	files := tar.NewReader(data)
	for {
		h, err := files.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the package's files: %w", err)
		}
		if err := each(h, files); err != nil {
			return err
		}
	}
}

// dataMember finds data.tar.* in the ar archive that a .deb is.
func dataMember(r io.Reader) (io.Reader, func(), error) {
	const magic, headerSize = "!<arch>\n", 60
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(r, head); err != nil || string(head) != magic {
		return nil, nil, fmt.Errorf("%w: no .deb file", ErrFormat)
	}
	header := make([]byte, headerSize)
	for {
		if _, err := io.ReadFull(r, header); err != nil {
			return nil, nil, fmt.Errorf("%w: a .deb file without data", ErrFormat)
		}
		name := strings.TrimRight(string(header[:16]), " /")
		size, err := strconv.ParseInt(strings.TrimSpace(string(header[48:58])), 10, 64)
		if err != nil || size < 0 || size > maxPackage || !bytes.Equal(header[58:], []byte("`\n")) {
			return nil, nil, fmt.Errorf("%w: the .deb member %q", ErrFormat, name)
		}
		if format, ok := strings.CutPrefix(name, "data.tar"); ok {
			return Decompress(io.LimitReader(r, size), format)
		}
		if _, err := io.CopyN(io.Discard, r, size+size%2); err != nil { // members are padded to even offsets
			return nil, nil, fmt.Errorf("%w: the .deb member %q is cut off", ErrFormat, name)
		}
	}
}

// Decompress reads a stream whose format a file name's ending tells: "", ".gz",
// ".xz" or ".zst". The caller calls the function when it has read enough.
func Decompress(r io.Reader, format string) (io.Reader, func(), error) {
	nothing := func() {}
	r = bufio.NewReaderSize(r, 256<<10) // the xz reader reads bytes one by one
	switch format {
	case "":
		return r, nothing, nil
	case ".gz":
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		return z, nothing, nil
	case ".xz":
		z, err := xz.NewReader(r)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		return z, nothing, nil
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		return z, z.Close, nil
	}
	return nil, nil, fmt.Errorf("%w: files compressed as %q", ErrFormat, format)
}
