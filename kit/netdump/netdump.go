// Package netdump makes listings of the kernel's network objects whole.
//
// The kernel hands out a long listing in parts. When an object comes or goes
// meanwhile it marks the listing as interrupted (NLM_F_DUMP_INTR in
// linux/netlink.h) and leaves it to the caller to ask again. On a machine where
// pods come and go that is an ordinary event, no error.
package netdump

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// attempts bounds Whole on a machine whose network never rests.
const attempts = 100

// Whole calls list until what it returns was not interrupted, and returns that
// with its error. When every one of many attempts was interrupted it returns the
// last listing, which may miss objects or show them twice, and an error that
// wraps netlink.ErrDumpInterrupted.
func Whole[T any](list func() ([]T, error)) ([]T, error) {
	var out []T
	var err error
	for range attempts {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return out, fmt.Errorf("the kernel's list changed during each of %d readings: %w", attempts, err)
}
