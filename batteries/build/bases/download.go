package bases

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strings"
)

// errMissing says that a server does not have a file.
var errMissing = errors.New("not there")

// maxText bounds what is read into memory: indexes and lists.
const maxText = 64 << 20

// open starts a download. The caller closes the body.
func (k *kitchen) open(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("download %s: %w", url, err)
	}
	req.Header.Set("User-Agent", "emerald-build")
	resp, err := k.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("download: %w", err)
	}
	switch {
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone:
		resp.Body.Close()
		return nil, fmt.Errorf("download %s: %w", url, errMissing)
	case resp.StatusCode != http.StatusOK:
		resp.Body.Close()
		return nil, fmt.Errorf("download %s: the server says %s", url, resp.Status)
	}
	return resp.Body, nil
}

// text downloads a list that is verified by its reader.
func (k *kitchen) text(ctx context.Context, url string) ([]byte, error) {
	body, err := k.open(ctx, url)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, maxText+1))
	if err != nil {
		return nil, fmt.Errorf("download %s: %w", url, err)
	}
	if len(b) > maxText {
		return nil, fmt.Errorf("download %s: larger than any such list", url)
	}
	return b, nil
}

// checksum is what a file must hash to.
type checksum struct {
	hash hash.Hash
	want []byte
}

func sha256Sum(hexSum string) (checksum, error) {
	want, err := hex.DecodeString(hexSum)
	if err != nil || len(want) != sha256.Size {
		return checksum{}, fmt.Errorf("%q is no SHA-256", hexSum)
	}
	return checksum{hash: sha256.New(), want: want}, nil
}

// sriSum reads a Subresource Integrity string ("sha512-…", W3C SRI), which npm
// uses.
func sriSum(s string) (checksum, error) {
	b64, ok := strings.CutPrefix(s, "sha512-")
	want, err := base64.StdEncoding.DecodeString(b64)
	if !ok || err != nil || len(want) != sha512.Size {
		return checksum{}, fmt.Errorf("%q is no SHA-512 integrity string", s)
	}
	return checksum{hash: sha512.New(), want: want}, nil
}

// file downloads url to path and verifies it; size < 0 means any. A file that
// does not match is removed.
func (k *kitchen) file(ctx context.Context, url, path string, size int64, sum checksum) (err error) {
	body, err := k.open(ctx, url)
	if err != nil {
		return err
	}
	defer body.Close()
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("keep a download: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(path)
		}
	}()
	var r io.Reader = body
	if size >= 0 {
		r = io.LimitReader(body, size+1)
	}
	n, err := io.Copy(io.MultiWriter(f, sum.hash), r)
	if err != nil {
		return fmt.Errorf("download %s: %w", url, err)
	}
	if size >= 0 && n != size || subtle.ConstantTimeCompare(sum.hash.Sum(nil), sum.want) != 1 {
		return fmt.Errorf("download %s: it is not the file that was announced (%d bytes, another checksum); a proxy or a mirror that is being updated may have changed it: try again", url, n)
	}
	return nil
}
