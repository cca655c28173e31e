// Package batteries is the list of everything the platform is made of.
package batteries

import (
	"github.com/emerald-platform/emerald/batteries/apps"
	"github.com/emerald-platform/emerald/batteries/build"
	"github.com/emerald-platform/emerald/batteries/certs"
	"github.com/emerald-platform/emerald/batteries/dns"
	"github.com/emerald-platform/emerald/batteries/gateway"
	"github.com/emerald-platform/emerald/batteries/registry"
	"github.com/emerald-platform/emerald/battery"
)

// All is every battery, in layers that a reader follows from the ground up. The
// order means nothing to the platform: that comes from Needs.
var All = []battery.Battery{
	// Names and trust
	dns.Battery,
	certs.Battery,

	// The way in
	gateway.Battery,

	// From source to image
	registry.Battery,
	build.Battery,

	// From image to an address
	apps.Battery,
}
