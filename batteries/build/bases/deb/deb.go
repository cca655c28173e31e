// Package deb reads Debian archives: signed indexes, package records, version
// numbers and .deb files, as far as it takes to unpack the first root file
// system of a suite without any tool of the machine. Installing is then dpkg's
// own work, inside that file system.
//
// It promises that nothing counts that Debian did not sign: a Release file by
// one of Debian's archive keys, the indexes by their digests in it, the
// packages by theirs in the indexes. It refuses unsigned archives, archives
// past their Valid-Until, file names that lead out of the root, and sizes that
// no base package has.
//
// Invariant: every byte that leaves this package was verified first.
package deb

import "errors"

// ErrNotTrusted says that a file is not what Debian signed.
var ErrNotTrusted = errors.New("not signed by Debian")

// ErrNotFound says that an archive has no such suite, index or package.
var ErrNotFound = errors.New("not in the archive")

// ErrFormat says that a file is not in Debian's format.
var ErrFormat = errors.New("not in Debian's format")
