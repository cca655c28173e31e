package certs

import (
	"testing"

	cmcontroller "github.com/cert-manager/cert-manager/pkg/controller"

	"github.com/emerald-platform/emerald/battery/batterytest"
)

func TestBattery(t *testing.T) { batterytest.Run(t, &Battery) }

// TestControllersExist keeps a new version of cert-manager from losing one
// unseen.
func TestControllersExist(t *testing.T) {
	known := cmcontroller.Known()
	for _, name := range append(append([]string{}, always...), withGateways...) {
		if known[name] == nil {
			t.Errorf("cert-manager has no controller %q", name)
		}
		delete(known, name)
	}
}
