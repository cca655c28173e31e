package build

import (
	"testing"

	"github.com/emerald-platform/emerald/battery/batterytest"
)

func TestBattery(t *testing.T) {
	batterytest.Run(t, &Battery,
		batterytest.Except(batterytest.Privileged, "runc mounts layers and makes namespaces, inside the pod's own user namespace"),
		batterytest.Except(batterytest.Root, "root of the pod's own user namespace, nobody on the machine"),
		batterytest.Except(batterytest.Host, "the machine's runc, read-only"),
	)
}

func TestConfig(t *testing.T) {
	sound := Battery.Config.(Config)
	tests := map[string]struct {
		change func(*Config)
		sound  bool
	}{
		"defaults":       {func(*Config) {}, true},
		"limits":         {func(c *Config) { c.Memory, c.CPU = "4Gi", "1500m" }, true},
		"no size":        {func(c *Config) { c.CacheSize = "much" }, false},
		"negative size":  {func(c *Config) { c.KeepFree = "-1Gi" }, false},
		"no parallelism": {func(c *Config) { c.Parallel = 0 }, false},
		"too old":        {func(c *Config) { c.BaseDays = 1000 }, false},
		"odd memory":     {func(c *Config) { c.Memory = "4 gigs" }, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c := sound
			tc.change(&c)
			if _, err := c.read(); (err == nil) != tc.sound {
				t.Errorf("read(%+v): %v", c, err)
			}
		})
	}
}
