package gateway

import (
	"testing"

	"github.com/emerald-platform/emerald/battery/batterytest"
)

func TestBattery(t *testing.T) { batterytest.Run(t, &Battery) }
