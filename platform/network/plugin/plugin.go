// Package plugin is the network plugin that the container runtime calls for
// every pod, CNI 1.1: ADD, DEL, CHECK, GC and STATUS on the machine's
// [datapath.Datapath]. It is a small program of its own, because the container
// runtime starts it for every pod and loading the whole platform would cost
// more than the work.
//
// Invariant: it holds no state besides the datapath's.
package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	result "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/emerald-platform/emerald/platform/network/datapath"
)

// Type is the plugin's name in configurations, and the name of its program.
const Type = "emerald-cni"

// CNIVersion is the version of the specification that configurations use.
const CNIVersion = "1.1.0"

// timeout bounds one call. The work takes milliseconds; the bound is for a
// machine that thrashes.
const timeout = 30 * time.Second

// Config is the plugin's part of a network configuration list.
type Config struct {
	types.PluginConf
	datapath.Config
	// Runtime is what the container runtime adds for one pod.
	Runtime struct {
		Ports []datapath.PortMapping `json:"portMappings,omitempty"`
	} `json:"runtimeConfig,omitzero"`
}

// Main runs one call, as the CNI specification says: from environment
// variables and standard input, to standard output. It ends the process when
// the call fails.
func Main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: del, Check: check, GC: gc, Status: status},
		version.PluginSupports("0.4.0", "1.0.0", "1.1.0"), "emerald-cni: the pod network of Emerald")
}

func open(args *skel.CmdArgs) (*Config, *datapath.Datapath, error) {
	c := new(Config)
	if err := json.Unmarshal(args.StdinData, c); err != nil {
		return nil, nil, types.NewError(types.ErrDecodingFailure, "decode network configuration", err.Error())
	}
	if c.StateDir == "" {
		return nil, nil, types.NewError(types.ErrInvalidNetworkConfig, "network configuration without stateDir", "")
	}
	return c, datapath.New(c.Config), nil
}

func add(args *skel.CmdArgs) error {
	c, d, err := open(args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	a := &datapath.Attachment{
		Container: args.ContainerID, Interface: args.IfName, NetNS: args.Netns,
		Pod: podName(args.Args), Ports: c.Runtime.Ports,
	}
	for _, p := range a.Ports {
		if !slices.Contains([]string{"tcp", "udp", "sctp"}, p.Protocol) || p.HostPort == 0 || p.ContainerPort == 0 {
			return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("map port %d to port %d over %q", p.HostPort, p.ContainerPort, p.Protocol), "")
		}
	}
	if err := d.Attach(ctx, a); err != nil {
		return err
	}
	return types.PrintResult(describe(a), c.CNIVersion)
}

// describe renders an attachment as the specification's result.
func describe(a *datapath.Attachment) *result.Result {
	r := &result.Result{
		CNIVersion: CNIVersion,
		Interfaces: []*result.Interface{{Name: a.Link}, {Name: a.Interface, Sandbox: a.NetNS}},
	}
	inside := 1
	for _, addr := range a.Addresses {
		mask := net.CIDRMask(addr.BitLen(), addr.BitLen())
		gateway := net.IP(datapath.Gateway(addr).AsSlice())
		r.IPs = append(r.IPs, &result.IPConfig{
			Interface: &inside, Address: net.IPNet{IP: addr.AsSlice(), Mask: mask}, Gateway: gateway,
		})
		r.Routes = append(r.Routes, &types.Route{
			Dst: net.IPNet{IP: make(net.IP, addr.BitLen()/8), Mask: net.CIDRMask(0, addr.BitLen())}, GW: gateway,
		})
	}
	return r
}

// podName reads namespace/name out of CNI_ARGS.
func podName(args string) string {
	var namespace, name string
	for _, kv := range strings.Split(args, ";") {
		key, value, _ := strings.Cut(kv, "=")
		switch key {
		case "K8S_POD_NAMESPACE":
			namespace = value
		case "K8S_POD_NAME":
			name = value
		}
	}
	if name == "" {
		return ""
	}
	return namespace + "/" + name
}

func del(args *skel.CmdArgs) error {
	_, d, err := open(args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.Detach(ctx, args.ContainerID, args.IfName)
}

func check(args *skel.CmdArgs) error {
	_, d, err := open(args)
	if err != nil {
		return err
	}
	a, err := d.Get(args.ContainerID, args.IfName)
	if err != nil {
		return err
	}
	if a == nil {
		return types.NewError(types.ErrUnknownContainer, "container "+args.ContainerID+" is not attached", "")
	}
	return datapath.Check(a)
}

func gc(args *skel.CmdArgs) error {
	c, d, err := open(args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_, err = d.Collect(ctx, func(a *datapath.Attachment) bool {
		return slices.Contains(c.ValidAttachments, types.GCAttachment{ContainerID: a.Container, IfName: a.Interface})
	})
	return err
}

// status says whether ADD can work now. Error 50 is the specification's
// "plugin not available".
func status(args *skel.CmdArgs) error {
	c, _, err := open(args)
	if err != nil {
		return err
	}
	if len(c.PodCIDRs) == 0 {
		return types.NewError(types.ErrPluginNotAvailable, "this machine has no pod addresses yet", "")
	}
	return nil
}
