// Package embedded carries the programs that run containers: the OCI runtime,
// the parent of every container, the pod network plugin and the first process
// of every pod. tools/build-runtime.sh puts them here before the platform is
// built.
//
// Invariant: a build without them still compiles, and says so when started.
package embedded

import (
	"embed"
	"fmt"
	"io/fs"
)

// The names of the programs.
const (
	Runc  = "runc"
	Shim  = "containerd-shim-runc-v2"
	CNI   = "emerald-cni"
	Pause = "pause"
)

//go:embed all:bin
var files embed.FS

// Read returns the program called name. The result must not be modified.
func Read(name string) ([]byte, error) {
	data, err := fs.ReadFile(files, "bin/"+name)
	if err != nil {
		return nil, fmt.Errorf("find the embedded program %q: this emerald was built without its container runtime; run `make build`", name)
	}
	return data, nil
}
