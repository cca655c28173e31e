// Package build turns source into images: BuildKit in a pod of its own, reached
// through the Kubernetes API, that builds Dockerfiles, and folders without one,
// and pushes the results to the platform's registry.
//
// It promises that common Dockerfiles build unchanged, with a network and
// without: base images are pulled through the registry where they can be, and
// otherwise made here, under their usual names. It refuses to lend its
// privileges: it runs in a user namespace, is root nowhere on the machine, has
// no container runtime's socket, and lets nobody in whom the API server did not
// give a token for it.
//
// Invariant: all state is in one directory, and losing it costs only time.
package build

import (
	"github.com/emerald-platform/emerald/battery"
)

// Battery is the builder.
var Battery = battery.Battery{
	Name: "build",
	Doc:  "Source becomes an image in the registry, from a Dockerfile or without one, with a network or without.",
	// Certificates arrive with the registry's.
	Needs:     []string{"registry"},
	Where:     battery.Own,
	Config:    Config{CacheSize: "30Gi", KeepFree: "2Gi", Parallel: 4, BaseDays: 30},
	Manifests: manifests,
	Run:       run,
	Proofs:    proofs,
}

// Config is what the user may set under "build" in the Platform.
type Config struct {
	// CacheSize bounds what layers and caches take of the disk, for example
	// "30Gi". What was used longest ago goes first.
	CacheSize string `json:"cacheSize"`

	// KeepFree is how much of the disk the cache leaves free, even when it is
	// smaller than CacheSize.
	KeepFree string `json:"keepFree"`

	// Parallel is how many steps of all builds together run at once, 1 to 256.
	Parallel int32 `json:"parallel"`

	// BaseDays is after how many days a base image that was made here is made
	// again, to get its security updates, 1 to 365.
	BaseDays int32 `json:"baseDays"`

	// Memory bounds the builder and all its steps together, for example "4Gi".
	// Empty means no bound of its own.
	Memory string `json:"memory,omitempty"`

	// CPU bounds the builder and all its steps together, for example "2".
	// Empty means no bound of its own.
	CPU string `json:"cpu,omitempty"`
}
