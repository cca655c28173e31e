package machine

import (
	"context"
	"time"

	"github.com/emerald-platform/emerald/platform/controlplane"
	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/node"
	"github.com/emerald-platform/emerald/platform/preflight"
)

// Preflight names everything that keeps a machine with these settings from
// running on this host, all at once. It is called when none runs.
func Preflight(ctx context.Context, d dirs.Dirs, s Settings) error {
	const loopback = "127.0.0.1"
	return preflight.Check(ctx, preflight.Options{
		Dirs: d, Built: built(Committed),
		Ports: []preflight.Port{
			{Network: "tcp", Number: controlplane.APIPort, For: "the Kubernetes API"},
			{Network: "tcp", Address: loopback, Number: controlplane.EtcdClientPort, For: "etcd"},
			{Network: "tcp", Address: s.Address, Number: controlplane.EtcdPeerPort, For: "etcd"},
			{Network: "tcp", Address: loopback, Number: controlplane.EtcdHTTPPort, For: "etcd"},
			{Network: "tcp", Address: loopback, Number: controlplane.ControllerManagerPort, For: "kube-controller-manager"},
			{Network: "tcp", Address: loopback, Number: controlplane.SchedulerPort, For: "kube-scheduler"},
			{Network: "tcp", Number: uint16(node.DefaultPorts.Kubelet), For: "the kubelet"},
			{Network: "tcp", Address: loopback, Number: uint16(node.DefaultPorts.KubeletHealth), For: "the kubelet"},
			{Network: "tcp", Address: loopback, Number: uint16(node.DefaultPorts.ProxyHealth), For: "kube-proxy"},
			{Network: "tcp", Address: loopback, Number: uint16(node.DefaultPorts.ProxyMetrics), For: "kube-proxy"},
			{Network: "tcp", Number: 80, For: "the gateway"},
			{Network: "tcp", Number: 443, For: "the gateway"},
		},
	})
}

// built is when the program's source was committed, the zero time for a build
// that does not say: then the clock is not checked by it.
func built(committed string) time.Time {
	t, err := time.Parse(time.RFC3339, committed)
	if err != nil {
		return time.Time{}
	}
	return t
}
