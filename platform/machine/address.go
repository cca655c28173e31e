package machine

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"

	"github.com/emerald-platform/emerald/kit/netdump"
)

// errNoAddress means that the machine has no address others could reach.
var errNoAddress = errors.New("no network interface has a global IPv4 address")

// Address returns the machine's own address: the one on the link of the
// default route, else the first global one of any link that is up. Addresses
// of loopback and of pods' links do not count.
func Address() (net.IP, error) {
	routes, err := netdump.Whole(func() ([]netlink.Route, error) {
		return netlink.RouteList(nil, netlink.FAMILY_V4)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		if len(r.Src) > 0 {
			return r.Src.To4(), nil
		}
		link, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil {
			continue
		}
		if ip := globalAddress(link); ip != nil {
			return ip, nil
		}
	}
	links, err := netdump.Whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	for _, link := range links {
		if link.Attrs().Flags&net.FlagUp == 0 || link.Attrs().Flags&net.FlagLoopback != 0 {
			continue
		}
		if ip := globalAddress(link); ip != nil {
			return ip, nil
		}
	}
	return nil, fmt.Errorf("find the machine's address: %w: name one with --address", errNoAddress)
}

func globalAddress(link netlink.Link) net.IP {
	addrs, err := netdump.Whole(func() ([]netlink.Addr, error) {
		return netlink.AddrList(link, netlink.FAMILY_V4)
	})
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		if ip := a.IP.To4(); ip != nil && ip.IsGlobalUnicast() {
			return ip
		}
	}
	return nil
}
