package datapath

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/google/nftables"
	"sigs.k8s.io/knftables"
)

// EgressTable holds the rules for what leaves the pod network.
const EgressTable = "emerald-egress"

// Tables names every nftables table that the datapath may make, in the
// families ip and ip6.
var Tables = []string{PortsTable, EgressTable}

// SyncEgress makes packets from this machine's pods to anywhere outside the
// cluster leave with the machine's address, and keeps pods from the machine's
// loopback. cluster are the ranges of all pods.
func (d *Datapath) SyncEgress(ctx context.Context, cluster []netip.Prefix) error {
	for _, f := range families {
		mine := ranges(d.config.PodCIDRs, f)
		if len(mine) == 0 {
			continue
		}
		nft, err := knftables.New(f.nft, EgressTable)
		if err != nil {
			return fmt.Errorf("use nftables (Debian package nftables): %w", err)
		}
		tx := nft.NewTransaction()
		tx.Add(&knftables.Table{})
		for name, members := range map[string][]string{"pods": mine, "cluster": append(ranges(cluster, f), f.multicast)} {
			set := &knftables.Set{Name: name, Type: f.kind, Flags: []knftables.SetFlag{knftables.IntervalFlag}, AutoMerge: knftables.PtrTo(true)}
			tx.Add(set)
			tx.Flush(set)
			for _, m := range members {
				tx.Add(&knftables.Element{Set: name, Key: []string{m}})
			}
		}
		c := &knftables.Chain{
			Name: "postrouting", Type: knftables.PtrTo(knftables.NATType),
			Hook: knftables.PtrTo(knftables.PostroutingHook), Priority: knftables.PtrTo(knftables.SNATPriority),
		}
		tx.Add(c)
		tx.Flush(c)
		tx.Add(&knftables.Rule{Chain: c.Name, Rule: knftables.Concat(f.word, "saddr @pods", f.word, "daddr != @cluster masquerade fully-random")})
		guardLoopback(tx, f)
		if err := nft.Run(ctx, tx); err != nil {
			return fmt.Errorf("write table %s %s: %w", f.nft, EgressTable, err)
		}
	}
	return nil
}

// guardLoopback keeps pods from the machine's loopback, which links that accept
// loopback addresses (route_localnet) would let them reach. Those links accept
// them for the machine's own connections only. CVE-2020-8558.
func guardLoopback(tx *knftables.Transaction, f family) {
	c := &knftables.Chain{
		Name: "guard", Type: knftables.PtrTo(knftables.FilterType),
		Hook: knftables.PtrTo(knftables.PreroutingHook), Priority: knftables.PtrTo(knftables.RawPriority),
	}
	tx.Add(c)
	tx.Flush(c)
	tx.Add(&knftables.Rule{Chain: c.Name, Rule: knftables.Concat("iifname", strconv.Quote(LinkPrefix+"*"), f.word, "daddr", f.loopback, "drop")})
}

// ranges returns the prefixes of a family, as nftables writes them.
func ranges(prefixes []netip.Prefix, f family) []string {
	var out []string
	for _, p := range prefixes {
		if f.has(p.Addr()) {
			out = append(out, p.Masked().String())
		}
	}
	return out
}

// RemoveTables removes the datapath's tables, which may be missing. It needs no
// program of the host.
func RemoveTables() error {
	return RemoveTablesNamed(func(name string) bool { return slices.Contains(Tables, name) })
}

// RemoveTablesNamed removes every table of the families ip, ip6 and inet whose
// name mine says yes to.
func RemoveTablesNamed(mine func(name string) bool) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("reach nftables: %w", err)
	}
	for _, kind := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyINet} {
		tables, err := conn.ListTablesOfFamily(kind)
		if err != nil {
			return fmt.Errorf("list nftables: %w", err)
		}
		for _, t := range tables {
			if mine(t.Name) {
				conn.DelTable(t)
			}
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove nftables: %w", err)
	}
	return nil
}

// tableExists asks the kernel whether it has a table.
func tableExists(f family, name string) bool {
	conn, err := nftables.New()
	if err != nil {
		return false
	}
	kind := nftables.TableFamilyIPv4
	if f.nft == knftables.IPv6Family {
		kind = nftables.TableFamilyIPv6
	}
	tables, err := conn.ListTablesOfFamily(kind)
	return err == nil && slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == name })
}
