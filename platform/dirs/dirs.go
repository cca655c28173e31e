// Package dirs names every place on disk that one machine uses. It promises
// that two machines with different [Dirs] share no path of ours, and it creates
// nothing: whoever writes a file makes its directory.
//
// Invariant: no other package of the platform spells out a path of its own.
package dirs

import "path/filepath"

// Dirs are the two directories of one machine. Both are absolute.
type Dirs struct {
	// Data survives a reboot.
	Data string
	// Run holds sockets, locks and what is void after a reboot. Keep it short:
	// the kernel limits a socket's path to 107 bytes and a container's socket
	// adds 67 of them.
	Run string
}

// Default is where a machine keeps its files unless told otherwise.
var Default = Dirs{Data: "/var/lib/emerald", Run: "/run/emerald"}

// MaxRun is the longest Run, in bytes, that leaves room for the sockets in it.
const MaxRun = 38

// InData and InRun name a place below the two directories that only one
// package uses.
func (d Dirs) InData(elem ...string) string {
	return filepath.Join(append([]string{d.Data}, elem...)...)
}

// InRun is InData's twin for what is void after a reboot.
func (d Dirs) InRun(elem ...string) string {
	return filepath.Join(append([]string{d.Run}, elem...)...)
}

// Bin holds the programs that the machine process carries and unpacks.
func (d Dirs) Bin() string { return filepath.Join(d.Data, "bin") }

// Log holds the log files of the machine and of its containers.
func (d Dirs) Log() string { return filepath.Join(d.Data, "log") }

// PodLogs holds a directory per pod with the output of its containers.
func (d Dirs) PodLogs() string { return filepath.Join(d.Data, "log", "pods") }

// Containerd holds the container runtime's configuration and its Root.
func (d Dirs) Containerd() string { return filepath.Join(d.Data, "containerd") }

// ContainerdRoot holds images, snapshots and the runtime's database.
func (d Dirs) ContainerdRoot() string { return filepath.Join(d.Data, "containerd", "root") }

// ContainerdState holds what the runtime knows about running containers.
func (d Dirs) ContainerdState() string { return filepath.Join(d.Run, "containerd") }

// ContainerdSocket is where the runtime answers, both to its own API and to CRI.
func (d Dirs) ContainerdSocket() string { return filepath.Join(d.Run, "containerd.sock") }

// ContainerdLock is held by the running runtime and tells who it is.
func (d Dirs) ContainerdLock() string { return filepath.Join(d.Run, "containerd.lock") }

// ShimSockets holds one socket per running pod.
func (d Dirs) ShimSockets() string { return filepath.Join(d.Run, "s") }

// Runc holds the OCI runtime's state of running containers.
func (d Dirs) Runc() string { return filepath.Join(d.Run, "runc") }

// RegistryHosts holds a directory per image registry with its hosts.toml.
func (d Dirs) RegistryHosts() string { return filepath.Join(d.Data, "containerd", "certs.d") }

// CNIBin holds the network plugins the container runtime may call.
func (d Dirs) CNIBin() string { return filepath.Join(d.Data, "cni", "bin") }

// CNIConfig holds the one network configuration the container runtime reads.
func (d Dirs) CNIConfig() string { return filepath.Join(d.Data, "cni", "net.d") }

// Network holds which pod has which address: void after a reboot.
func (d Dirs) Network() string { return filepath.Join(d.Run, "network") }

// Kubelet is the kubelet's root directory: volumes and pod state.
func (d Dirs) Kubelet() string { return filepath.Join(d.Data, "kubelet") }

// KubeletPKI holds the kubelet's rotating certificates.
func (d Dirs) KubeletPKI() string { return filepath.Join(d.Data, "kubelet", "pki") }

// KubeletKubeconfig is written by the kubelet once it has a certificate, and
// is the node's own identity towards the API.
func (d Dirs) KubeletKubeconfig() string { return filepath.Join(d.Data, "kubelet", "kubeconfig") }

// Node holds generated configuration of the node's components.
func (d Dirs) Node() string { return filepath.Join(d.Data, "node") }

// CredentialProviders holds the programs the kubelet asks for registry
// credentials.
func (d Dirs) CredentialProviders() string {
	return filepath.Join(d.Data, "node", "credential-providers")
}

// Sysctls records the kernel settings as they were before they were changed.
func (d Dirs) Sysctls() string { return filepath.Join(d.Data, "node", "sysctls.json") }

// SelfImage caches what is known about the platform's own image.
func (d Dirs) SelfImage() string { return filepath.Join(d.Data, "node", "selfimage.json") }

// Version records which version of the platform last wrote to Data.
func (d Dirs) Version() string { return filepath.Join(d.Data, "version") }
