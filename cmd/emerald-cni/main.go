// Command emerald-cni connects pods to the network. The container runtime
// starts it; emerald carries it inside and unpacks it.
package main

import "github.com/emerald-platform/emerald/platform/network/plugin"

func main() { plugin.Main() }
