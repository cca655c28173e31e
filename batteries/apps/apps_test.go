package apps

import (
	"testing"

	"github.com/emerald-platform/emerald/battery/batterytest"
)

func TestBattery(t *testing.T) { batterytest.Run(t, &Battery) }

func TestConfigRefusals(t *testing.T) {
	tests := map[string]func(*Config){
		"no gateway":        func(c *Config) { c.Gateway.Name = "" },
		"no issuer":         func(c *Config) { c.Issuer = "" },
		"amount of nothing": func(c *Config) { c.Defaults.Memory = "" },
		"negative amount":   func(c *Config) { c.Defaults.CPU = "-1" },
		"unknown way":       func(c *Config) { c.RootImages = "maybe" },
		"no history":        func(c *Config) { c.History = 0 },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			site := batterytest.Site(&Battery)
			c := config(site)
			spoil(&c)
			site.Config = c
			if _, err := manifests(site); err == nil {
				t.Error("accepted")
			}
		})
	}
}
