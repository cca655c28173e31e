package deb

import (
	"bytes"
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
)

// keyring holds the keys of Debian's archive, as Debian publishes them in its
// package debian-archive-keyring.
//
//go:embed keyring.gpg
var keyring []byte

// Release is a suite's signed table of contents (the file InRelease).
type Release struct {
	Suite, Codename, Version string
	files                    map[string]fileSum // by path below the suite
}

type fileSum struct {
	sha256 string
	size   int64
}

// ParseRelease verifies an InRelease file with Debian's keys, as of the time
// now, and reads it. It returns ErrNotTrusted for a bad signature and for one
// that has expired.
func ParseRelease(inRelease []byte, now time.Time) (*Release, error) {
	keys, err := openpgp.ReadKeyRing(bytes.NewReader(keyring))
	if err != nil {
		return nil, fmt.Errorf("read Debian's keys: %w", err)
	}
	return parseRelease(inRelease, keys, now)
}

func parseRelease(inRelease []byte, keys openpgp.EntityList, now time.Time) (*Release, error) {
	block, _ := clearsign.Decode(inRelease)
	if block == nil {
		return nil, fmt.Errorf("%w: no signed message", ErrNotTrusted)
	}
	if _, err := block.VerifySignature(keys, nil); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotTrusted, err)
	}
	r := &Release{files: map[string]fileSum{}}
	inSums := false
	for _, line := range strings.Split(string(block.Plaintext), "\n") {
		if strings.HasPrefix(line, " ") {
			if inSums {
				if err := r.addFile(line); err != nil {
					return nil, err
				}
			}
			continue
		}
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		inSums = key == "SHA256"
		switch key {
		case "Suite":
			r.Suite = value
		case "Codename":
			r.Codename = value
		case "Version":
			r.Version = value
		case "Valid-Until":
			end, err := time.Parse(time.RFC1123, value)
			if err != nil {
				return nil, fmt.Errorf("%w: Valid-Until %q", ErrFormat, value)
			}
			if now.After(end) {
				return nil, fmt.Errorf("%w: the list was valid until %s; the mirror is not kept up, or this machine's clock is wrong", ErrNotTrusted, value)
			}
		}
	}
	if r.Codename == "" {
		return nil, fmt.Errorf("%w: a Release without Codename", ErrFormat)
	}
	return r, nil
}

// addFile reads " SHA256 SIZE PATH".
func (r *Release) addFile(line string) error {
	f := strings.Fields(line)
	if len(f) != 3 || len(f[0]) != 64 {
		return fmt.Errorf("%w: Release line %q", ErrFormat, line)
	}
	size, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil || size < 0 {
		return fmt.Errorf("%w: Release line %q", ErrFormat, line)
	}
	r.files[f[2]] = fileSum{sha256: f[0], size: size}
	return nil
}

// Index returns the path below the suite, the SHA-256 in hex and the size of the
// package index of a component for a machine. Small suites have it in one
// compression only.
func (r *Release) Index(component, machine string) (path, sha256 string, size int64, err error) {
	plain := component + "/binary-" + machine + "/Packages"
	for _, path := range []string{plain + ".gz", plain + ".xz", plain} {
		if f, ok := r.files[path]; ok {
			return path, f.sha256, f.size, nil
		}
	}
	return "", "", 0, fmt.Errorf("%s of %s: %w", plain, r.Suite, ErrNotFound)
}
