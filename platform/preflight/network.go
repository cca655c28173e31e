package preflight

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rules is a table that uses what the pod network and kube-proxy use of
// nftables, feature by feature.
var rules = []struct{ name, module, rules string }{
	{"set nftables rules", "nf_tables", "add table ip t; add chain ip t c { type filter hook prerouting priority raw; }"},
	{"translate addresses", "nft_nat", "add table ip t; add chain ip t c { type nat hook postrouting priority srcnat; }; add rule ip t c masquerade"},
	{"tell its own addresses in rules", "nft_fib_ipv4", "add table ip t; add chain ip t c { type nat hook prerouting priority dstnat; }; add rule ip t c fib daddr type local accept"},
	{"follow connections", "nf_conntrack", "add table ip t; add chain ip t c { type filter hook forward priority filter; }; add rule ip t c ct state invalid drop"},
	{"spread connections over pods", "nft_numgen", "add table ip t; add chain ip t c; add rule ip t c numgen random mod 2 vmap { 0 : accept, 1 : accept }"},
}

// tryNetwork does in a network namespace of its own what the pod network does,
// and returns what does not work. The namespace ends with the try.
func tryNetwork(ctx context.Context) []lacking {
	result := make(chan []lacking, 1)
	go func() {
		// Never unlocked: the thread ends with this goroutine, and its
		// namespace with it.
		runtime.LockOSThread()
		result <- tryNetworkHere(ctx)
	}()
	return <-result
}

func tryNetworkHere(ctx context.Context) []lacking {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return []lacking{{"make network namespaces", "none", err}}
	}
	var out []lacking
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "a"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "b"}); err != nil {
		out = append(out, lacking{"make veth links", "veth", err})
	}
	nft, err := nftPath()
	if err != nil {
		// A problem of its own, named by another check.
		return out
	}
	for _, r := range rules {
		// --check: the kernel looks at the rules and keeps none.
		cmd := exec.CommandContext(ctx, nft, "--check", "-f", "-")
		cmd.Stdin = strings.NewReader(strings.ReplaceAll(r.rules, "; add", "\nadd") + "\n")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Run(); err != nil && ctx.Err() == nil {
			first, _, _ := strings.Cut(stderr.String(), "\n")
			out = append(out, lacking{r.name, r.module, errors.New(strings.TrimSpace(fmt.Sprint(first)))})
		}
	}
	return out
}
