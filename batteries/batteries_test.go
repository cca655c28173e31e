package batteries_test

import (
	"testing"

	"github.com/emerald-platform/emerald/batteries"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/picture"
)

// TestAll shows that the batteries fit together: what each one's own test
// cannot see.
func TestAll(t *testing.T) {
	if err := battery.Validate(batteries.All); err != nil {
		t.Error(err)
	}
	if err := picture.Validate(batteries.All); err != nil {
		t.Error(err)
	}
	if _, err := battery.Order(batteries.All); err != nil {
		t.Error(err)
	}
}
