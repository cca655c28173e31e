package entry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/knftables"

	"github.com/emerald-platform/emerald/platform/network/datapath"
)

// TableName is the nftables table, of the family ip.
const TableName = "emerald-entry"

// way leads a port of 127.0.0.1 to a pod on this machine.
type way struct {
	protocol string // tcp or udp
	port     int32
	pod      netip.Addr
	podPort  int32
}

// waysOf returns the ways to a Service's pods on a machine. For each port the
// first ready pod by address is taken, else the first that is going but still
// serves.
func waysOf(s *corev1.Service, list []*discoveryv1.EndpointSlice, node string) []way {
	var out []way
	for _, p := range s.Spec.Ports {
		protocol := strings.ToLower(string(p.Protocol))
		if protocol == "" {
			protocol = "tcp"
		}
		var ready, serving []way
		for _, slice := range list {
			i := slices.IndexFunc(slice.Ports, func(q discoveryv1.EndpointPort) bool { return q.Name != nil && *q.Name == p.Name })
			if slice.AddressType != discoveryv1.AddressTypeIPv4 || i < 0 || slice.Ports[i].Port == nil {
				continue
			}
			for _, e := range slice.Endpoints {
				if e.NodeName == nil || *e.NodeName != node || len(e.Addresses) == 0 {
					continue
				}
				pod, err := netip.ParseAddr(e.Addresses[0])
				if err != nil {
					continue
				}
				w := way{protocol, p.Port, pod, *slice.Ports[i].Port}
				switch {
				case e.Conditions.Ready == nil || *e.Conditions.Ready:
					ready = append(ready, w)
				case e.Conditions.Serving != nil && *e.Conditions.Serving:
					serving = append(serving, w)
				}
			}
		}
		if len(ready) == 0 {
			ready = serving
		}
		if len(ready) > 0 {
			out = append(out, slices.MinFunc(ready, func(a, b way) int { return a.pod.Compare(b.pod) }))
		}
	}
	return out
}

// table is the nftables table as last written.
type table struct {
	written []way
	known   bool // written is what is there
}

func newTable() *table { return &table{} }

// forget makes the next write happen even if nothing changed.
func (t *table) forget() { t.known = false }

// write makes the table lead these ways, in one step.
func (t *table) write(ctx context.Context, ways []way) error {
	slices.SortFunc(ways, func(a, b way) int {
		return cmp.Or(strings.Compare(a.protocol, b.protocol), cmp.Compare(a.port, b.port), a.pod.Compare(b.pod))
	})
	// Two Services may want one port: the first in order has it.
	ways = slices.CompactFunc(ways, func(a, b way) bool { return a.protocol == b.protocol && a.port == b.port })
	if t.known && slices.Equal(ways, t.written) {
		return nil
	}
	for _, w := range ways {
		if err := acceptLoopback(w.pod); err != nil {
			return err
		}
	}
	nft, err := knftables.New(knftables.IPv4Family, TableName)
	if err != nil {
		return fmt.Errorf("use nftables (Debian package nftables): %w", err)
	}
	tx := nft.NewTransaction()
	rules(tx, ways)
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("write table ip %s: %w", TableName, err)
	}
	t.written, t.known = ways, true
	return nil
}

// rules fills a transaction with the whole table.
func rules(tx *knftables.Transaction, ways []way) {
	tx.Add(&knftables.Table{})
	ports := &knftables.Map{Name: "ports", Type: "inet_proto . inet_service : ipv4_addr . inet_service"}
	tx.Add(ports)
	tx.Flush(ports)
	for _, w := range ways {
		tx.Add(&knftables.Element{
			Map: ports.Name, Key: []string{w.protocol, strconv.Itoa(int(w.port))},
			Value: []string{w.pod.String(), strconv.Itoa(int(w.podPort))},
		})
	}
	chain := func(name string, hook knftables.BaseChainHook, priority knftables.BaseChainPriority, rule string) {
		c := &knftables.Chain{Name: name, Type: knftables.PtrTo(knftables.NATType), Hook: &hook, Priority: &priority}
		tx.Add(c)
		tx.Flush(c)
		tx.Add(&knftables.Rule{Chain: name, Rule: rule})
	}
	chain("output", knftables.OutputHook, knftables.DNATPriority, "ip daddr 127.0.0.0/8 dnat ip to meta l4proto . th dport map @ports")
	// The pod answers to the machine, not to its own loopback.
	chain("postrouting", knftables.PostroutingHook, knftables.SNATPriority,
		knftables.Concat("oifname", strconv.Quote(datapath.LinkPrefix+"*"), "ip saddr 127.0.0.0/8 masquerade"))
}

// acceptLoopback lets packets from 127.0.0.1 leave by a pod's link. What pods
// send to 127.0.0.1 the other way is dropped by the rules of the pod network.
func acceptLoopback(pod netip.Addr) error {
	routes, err := netlink.RouteGet(net.IP(pod.AsSlice()))
	if err != nil || len(routes) == 0 {
		return fmt.Errorf("find the link of pod %s: %w", pod, err)
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return fmt.Errorf("find the link of pod %s: %w", pod, err)
	}
	name := link.Attrs().Name
	if !strings.HasPrefix(name, datapath.LinkPrefix) {
		return nil // not a pod of this machine after all
	}
	file := filepath.Join("/proc/sys/net/ipv4/conf", name, "route_localnet")
	if err := os.WriteFile(file, []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("let 127.0.0.1 reach pod %s: %w", pod, err)
	}
	return nil
}

// remove removes the table, if it is there.
func (t *table) remove(ctx context.Context) error {
	t.known = false
	nft, err := knftables.New(knftables.IPv4Family, TableName)
	if err != nil {
		return fmt.Errorf("use nftables (Debian package nftables): %w", err)
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{}) // so that removing it never fails
	tx.Delete(&knftables.Table{})
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("remove table ip %s: %w", TableName, err)
	}
	return nil
}
