package datapath

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"
)

// PortsTable holds the rules that lead ports of the machine to pods.
const PortsTable = "emerald-hostports"

// family is what differs between the rules of IPv4 and IPv6.
type family struct {
	nft       knftables.Family
	word      string // of addresses in rules
	kind      string // of addresses in sets
	has       func(netip.Addr) bool
	loopback  string
	multicast string
}

var families = []family{
	{knftables.IPv4Family, "ip", "ipv4_addr", netip.Addr.Is4, "127.0.0.0/8", "224.0.0.0/4"},
	{knftables.IPv6Family, "ip6", "ipv6_addr", netip.Addr.Is6, "::1/128", "ff00::/8"},
}

func attachPorts(ctx context.Context, s *State, a *Attachment) error {
	if len(a.Ports) == 0 {
		return nil
	}
	if err := syncPorts(ctx, s); err != nil {
		return err
	}
	return forgetFlows(a)
}

func detachPorts(ctx context.Context, s *State, a *Attachment) error {
	if len(a.Ports) == 0 {
		return nil
	}
	if err := syncPorts(ctx, s); err != nil {
		return err
	}
	return forgetFlows(a)
}

// SyncPorts writes the rules of all ports of all pods anew, in one step, and so
// heals what somebody else removed.
func (d *Datapath) SyncPorts(ctx context.Context) error {
	return d.store.update(func(s *State, _ func() error) error { return syncPorts(ctx, s) })
}

func syncPorts(ctx context.Context, s *State) error {
	for _, f := range families {
		// A machine that never had a port of a family has no table of it.
		if !hasPorts(s, f) && !tableExists(f, PortsTable) {
			continue
		}
		nft, err := knftables.New(f.nft, PortsTable)
		if err != nil {
			return fmt.Errorf("use nftables (Debian package nftables): %w", err)
		}
		tx := nft.NewTransaction()
		portRules(tx, f)
		for _, e := range portElements(s, f) {
			tx.Add(e)
		}
		if err := nft.Run(ctx, tx); err != nil {
			return fmt.Errorf("write table %s %s: %w", f.nft, PortsTable, err)
		}
	}
	return nil
}

func hasPorts(s *State, f family) bool {
	return slices.ContainsFunc(s.Attachments, func(a Attachment) bool {
		return len(a.Ports) > 0 && slices.ContainsFunc(a.Addresses, f.has)
	})
}

// portRules adds everything but the ports themselves, and empties the maps.
func portRules(tx *knftables.Transaction, f family) {
	tx.Add(&knftables.Table{})
	for _, m := range []*knftables.Map{
		{Name: "ports", Type: "inet_proto . inet_service : " + f.kind + " . inet_service"},
		{Name: "address-ports", Type: f.kind + " . inet_proto . inet_service : " + f.kind + " . inet_service"},
	} {
		tx.Add(m)
		tx.Flush(m)
	}
	self := &knftables.Set{Name: "self", Type: f.kind + " . " + f.kind}
	tx.Add(self)
	tx.Flush(self)

	chain := func(name string, kind knftables.BaseChainType, hook knftables.BaseChainHook, priority knftables.BaseChainPriority, rules ...string) {
		c := &knftables.Chain{Name: name}
		if kind != "" {
			c.Type, c.Hook, c.Priority = &kind, &hook, &priority
		}
		tx.Add(c)
		tx.Flush(c)
		for _, rule := range rules {
			tx.Add(&knftables.Rule{Chain: name, Rule: rule})
		}
	}
	chain("lead", "", "", "",
		knftables.Concat("dnat", f.word, "to", f.word, "daddr . meta l4proto . th dport map @address-ports"),
		knftables.Concat("dnat", f.word, "to meta l4proto . th dport map @ports"),
	)
	chain("prerouting", knftables.NATType, knftables.PreroutingHook, knftables.DNATPriority, "fib daddr type local jump lead")
	chain("output", knftables.NATType, knftables.OutputHook, knftables.DNATPriority, "fib daddr type local jump lead")
	chain("postrouting", knftables.NATType, knftables.PostroutingHook, knftables.SNATPriority,
		// A pod that meets itself through its machine's port must not see its
		// own address as the peer's: it would answer past the machine.
		knftables.Concat("ct status dnat", f.word, "saddr .", f.word, "daddr @self masquerade"),
		knftables.Concat("oifname", strconv.Quote(LinkPrefix+"*"), f.word, "saddr", f.loopback, "masquerade"),
	)
	guardLoopback(tx, f)
}

// portElements returns the entries of the maps. Where two pods claim the same
// port (the old one is being removed while the new one starts), the later wins.
func portElements(s *State, f family) []*knftables.Element {
	byKey := map[string]*knftables.Element{}
	var order []string
	add := func(e *knftables.Element) {
		key := fmt.Sprint(e.Map, e.Set, e.Key)
		if byKey[key] == nil {
			order = append(order, key)
		}
		byKey[key] = e
	}
	for _, a := range s.Attachments {
		i := slices.IndexFunc(a.Addresses, f.has)
		if i < 0 || len(a.Ports) == 0 {
			continue
		}
		pod := a.Addresses[i]
		add(&knftables.Element{Set: "self", Key: []string{pod.String(), pod.String()}})
		for _, p := range a.Ports {
			to := []string{pod.String(), strconv.Itoa(int(p.ContainerPort))}
			port := strconv.Itoa(int(p.HostPort))
			switch {
			case !p.HostIP.IsValid() || p.HostIP.IsUnspecified():
				add(&knftables.Element{Map: "ports", Key: []string{p.Protocol, port}, Value: to})
			case f.has(p.HostIP):
				add(&knftables.Element{Map: "address-ports", Key: []string{p.HostIP.String(), p.Protocol, port}, Value: to})
			}
		}
	}
	out := make([]*knftables.Element, 0, len(order))
	for _, key := range order {
		out = append(out, byKey[key])
	}
	return out
}

// forgetFlows makes the kernel forget where it led UDP packets to these ports
// before: without a connection that ends, it would go on for ever.
func forgetFlows(a *Attachment) error {
	for _, p := range a.Ports {
		if p.Protocol != "udp" {
			continue
		}
		for _, addr := range a.Addresses {
			var inet netlink.InetFamily = unix.AF_INET
			if addr.Is6() {
				inet = unix.AF_INET6
			}
			filter := new(netlink.ConntrackFilter)
			if err := filter.AddProtocol(unix.IPPROTO_UDP); err != nil {
				return fmt.Errorf("forget flows of port %d: %w", p.HostPort, err)
			}
			if err := filter.AddPort(netlink.ConntrackOrigDstPort, p.HostPort); err != nil {
				return fmt.Errorf("forget flows of port %d: %w", p.HostPort, err)
			}
			if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, inet, filter); err != nil {
				return fmt.Errorf("forget flows of port %d: %w", p.HostPort, err)
			}
		}
	}
	return nil
}
