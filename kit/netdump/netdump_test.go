package netdump_test

import (
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/emerald-platform/emerald/kit/netdump"
)

func TestWhole(t *testing.T) {
	tests := []struct {
		reason string
		errs   []error // of one call after the other; the last one stays
		want   []int
		err    error
		calls  int
	}{
		{reason: "a whole listing is returned at once", errs: []error{nil}, want: []int{1}, calls: 1},
		{
			reason: "an interrupted listing is asked for again",
			errs:   []error{netlink.ErrDumpInterrupted, netlink.ErrDumpInterrupted, nil}, want: []int{3}, calls: 3,
		},
		{reason: "other errors are the caller's", errs: []error{io.ErrUnexpectedEOF}, want: []int{1}, err: io.ErrUnexpectedEOF, calls: 1},
		{
			reason: "a network that never rests does not hold up the caller for ever",
			errs:   []error{netlink.ErrDumpInterrupted}, want: []int{100}, err: netlink.ErrDumpInterrupted, calls: 100,
		},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			calls := 0
			got, err := netdump.Whole(func() ([]int, error) {
				err := tt.errs[min(calls, len(tt.errs)-1)]
				calls++
				return []int{calls}, err
			})
			if !errors.Is(err, tt.err) || !slices.Equal(got, tt.want) || calls != tt.calls {
				t.Errorf("Whole() = %v, %v after %d calls, want %v, %v after %d", got, err, calls, tt.want, tt.err, tt.calls)
			}
		})
	}
}
