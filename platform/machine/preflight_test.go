package machine

import (
	"testing"
	"time"
)

func TestBuilt(t *testing.T) {
	for stamp, want := range map[string]time.Time{
		"":                     {}, // built without git
		"yesterday":            {},
		"2026-11-22T23:36:37Z": time.Date(2026, 11, 22, 23, 36, 37, 0, time.UTC),
	} {
		if got := built(stamp); !got.Equal(want) {
			t.Errorf("built(%q) = %s, want %s", stamp, got, want)
		}
	}
}
