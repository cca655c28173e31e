// Command emerald is the platform: Kubernetes and its batteries in one program.
package main

import (
	"github.com/emerald-platform/emerald/batteries"
	"github.com/emerald-platform/emerald/cli"
)

func main() { cli.Main(batteries.All) }
