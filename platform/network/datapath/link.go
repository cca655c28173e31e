package datapath

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/emerald-platform/emerald/kit/netdump"
)

// Gateways are the addresses at which pods find their machine: the same for
// every pod, and no address of any interface. RFC 3927, RFC 4291 §2.5.6.
var (
	gateway4 = netip.AddrFrom4([4]byte{169, 254, 1, 1})
	gateway6 = netip.MustParseAddr("fe80::ecee:eeff:feee:eeee")
)

// Gateway returns the gateway of pods for the family of addr.
func Gateway(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return gateway4
	}
	return gateway6
}

// one returns the prefix that holds nothing but addr.
func one(addr netip.Addr) *net.IPNet {
	return &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}
}

// attachLink makes the pair of interfaces and the routes on both sides.
func (c Config) attachLink(_ context.Context, _ *State, a *Attachment) error {
	pod, err := netns.GetFromPath(a.NetNS)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", a.NetNS, err)
	}
	defer pod.Close()
	inside, err := netlink.NewHandleAt(pod, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter network namespace %s: %w", a.NetNS, err)
	}
	defer inside.Close()

	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = a.Link, c.MTU
	err = netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: a.Interface, PeerNamespace: netlink.NsFd(pod), PeerMTU: uint32(c.MTU),
	})
	if err != nil {
		return fmt.Errorf("make link %s: %w", a.Link, err)
	}
	near, err := netlink.LinkByName(a.Link)
	if err != nil {
		return fmt.Errorf("find link %s: %w", a.Link, err)
	}
	far, err := inside.LinkByName(a.Interface)
	if err != nil {
		return fmt.Errorf("find link %s inside: %w", a.Interface, err)
	}
	// The name people see in `ip link`: whose link this is.
	if err := netlink.LinkSetAlias(near, a.Pod); err != nil {
		return fmt.Errorf("name link %s: %w", a.Link, err)
	}
	// Strict reverse-path filtering: a pod can't send from another's address.
	if err := setLink(a.Link, "ipv4", "rp_filter", "1"); err != nil {
		return err
	}
	if err := setLink(a.Link, "ipv6", "accept_ra", "0"); err != nil {
		return err
	}
	if len(a.Ports) > 0 {
		// A connection to a port of 127.0.0.1 leaves by this link. The rules
		// of the ports keep pods from using it the other way round.
		if err := setLink(a.Link, "ipv4", "route_localnet", "1"); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(near); err != nil {
		return fmt.Errorf("start link %s: %w", a.Link, err)
	}
	if err := inside.LinkSetUp(far); err != nil {
		return fmt.Errorf("start link %s inside: %w", a.Interface, err)
	}
	for _, addr := range a.Addresses {
		if err := connect(inside, near, far, addr); err != nil {
			return fmt.Errorf("connect %s over %s: %w", addr, a.Link, err)
		}
	}
	return nil
}

// connect makes addr the pod's address and sets up both directions.
func connect(inside *netlink.Handle, near, far netlink.Link, addr netip.Addr) error {
	gateway := Gateway(addr)
	// No duplicate address detection: the address is ours by allocation, and
	// waiting for it would cost a second per pod. RFC 4862 §5.4.
	err := inside.AddrAdd(far, &netlink.Addr{IPNet: one(addr), Flags: unix.IFA_F_NODAD})
	if err != nil {
		return fmt.Errorf("add address: %w", err)
	}
	if err := introduce(inside, far, gateway, near.Attrs().HardwareAddr); err != nil {
		return fmt.Errorf("introduce the gateway: %w", err)
	}
	everything := &net.IPNet{IP: make(net.IP, addr.BitLen()/8), Mask: net.CIDRMask(0, addr.BitLen())}
	err = inside.RouteReplace(&netlink.Route{LinkIndex: far.Attrs().Index, Dst: everything, Gw: gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK)})
	if err != nil {
		return fmt.Errorf("add default route: %w", err)
	}
	if err := introduce(&netlink.Handle{}, near, addr, far.Attrs().HardwareAddr); err != nil {
		return fmt.Errorf("introduce the pod: %w", err)
	}
	return nil
}

// introduce tells one side of a link who is at its other end. Neighbours are
// written down, so nothing is ever asked on the link and nobody can answer in
// another's name.
func introduce(h *netlink.Handle, link netlink.Link, other netip.Addr, hardware net.HardwareAddr) error {
	err := h.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: other.AsSlice(), HardwareAddr: hardware,
	})
	if err != nil {
		return fmt.Errorf("add neighbour: %w", err)
	}
	err = h.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: one(other), Scope: netlink.SCOPE_LINK})
	if err != nil {
		return fmt.Errorf("add route: %w", err)
	}
	return nil
}

// detachLink removes the pair; routes, neighbours and addresses go with it.
func detachLink(_ context.Context, _ *State, a *Attachment) error {
	link, err := netlink.LinkByName(a.Link)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if errors.As(err, new(netlink.LinkNotFoundError)) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove link %s: %w", a.Link, err)
	}
	return nil
}

// Check returns nil when the kernel still has what Attach made.
func Check(a *Attachment) error {
	near, err := netlink.LinkByName(a.Link)
	if err != nil {
		return fmt.Errorf("find link %s: %w", a.Link, err)
	}
	if near.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("link %s of pod %s is down", a.Link, a.Pod)
	}
	pod, err := netns.GetFromPath(a.NetNS)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", a.NetNS, err)
	}
	defer pod.Close()
	inside, err := netlink.NewHandleAt(pod, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter network namespace %s: %w", a.NetNS, err)
	}
	defer inside.Close()
	far, err := inside.LinkByName(a.Interface)
	if err != nil {
		return fmt.Errorf("find link %s of pod %s: %w", a.Interface, a.Pod, err)
	}
	for _, addr := range a.Addresses {
		family := netlink.FAMILY_V4
		if addr.Is6() {
			family = netlink.FAMILY_V6
		}
		have, err := netdump.Whole(func() ([]netlink.Addr, error) { return inside.AddrList(far, family) })
		if err != nil {
			return fmt.Errorf("list addresses of pod %s: %w", a.Pod, err)
		}
		found := false
		for _, h := range have {
			found = found || h.IP.Equal(addr.AsSlice())
		}
		if !found {
			return fmt.Errorf("address %s of pod %s is gone", addr, a.Pod)
		}
		routes, err := netdump.Whole(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{Dst: one(addr), LinkIndex: near.Attrs().Index}, netlink.RT_FILTER_DST|netlink.RT_FILTER_OIF)
		})
		if err != nil {
			return fmt.Errorf("list routes to pod %s: %w", a.Pod, err)
		}
		if len(routes) == 0 {
			return fmt.Errorf("route to %s of pod %s is gone", addr, a.Pod)
		}
	}
	return nil
}

// setLink changes a kernel setting of one link. A kernel without the family,
// and settings that can't be written (inside a container), are accepted: they
// harden, they don't connect.
func setLink(link, family, name, value string) error {
	path := filepath.Join("/proc/sys/net", family, "conf", link, name)
	err := os.WriteFile(path, []byte(value), 0)
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EROFS) {
		return nil
	}
	return fmt.Errorf("set %s of link %s: %w", name, link, err)
}
