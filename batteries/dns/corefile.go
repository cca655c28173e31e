package dns

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/emerald-platform/emerald/battery"
)

// directives are the parts of CoreDNS in use, in the order in which a query
// passes them. It is upstream's order with one exception: "template" comes last,
// where it answers what nobody else could.
var directives = []string{
	"prometheus", "errors", "loadbalance", "rewrite", "cache", "hosts", "kubernetes", "loop", "forward", "template",
}

// metricsAddress is where CoreDNS insists on serving its metrics. Nobody asks
// there: they are in the process's common registry, which the platform serves on
// [battery.ReadyPort].
const metricsAddress = "127.0.0.1:9153"

// gatewayService is the name, below the cluster's domain, that the platform's
// own domain leads to.
const gatewayService = "gateway.emerald-gateway.svc"

// place is what a Corefile depends on besides the settings.
type place struct {
	port       int
	metrics    string   // see metricsAddress
	upstreams  []string // resolvers for everything outside, in order; may be empty
	kubeconfig string   // file with the way to the API
}

// directive is one line of a Corefile, with a body in braces when it has one.
type directive struct {
	words []string
	body  [][]string
}

func line(words ...string) directive { return directive{words: words} }

func (d *directive) add(words ...string) { d.body = append(d.body, words) }

// block is one server block: how the names of one zone are answered.
type block struct {
	zone       string
	directives []directive
}

// corefile returns the whole configuration of the server. The settings must
// have passed check: nothing is escaped here.
func corefile(s battery.Site, c Config, p place) []byte {
	blocks := []block{rootBlock(s, c, p)}
	for _, domain := range slices.Sorted(maps.Keys(c.StubDomains)) {
		blocks = append(blocks, block{zone: domain, directives: slices.Concat(
			common(p),
			cached(c),
			[]directive{line("loop"), forward(domain, c.StubDomains[domain])},
		)})
	}
	var out strings.Builder
	for _, b := range blocks {
		b.write(&out, p.port)
	}
	return []byte(out.String())
}

func rootBlock(s battery.Site, c Config, p place) block {
	kubernetes := line("kubernetes", s.ClusterDomain, "in-addr.arpa", "ip6.arpa")
	kubernetes.add("pods", string(c.Pods))
	kubernetes.add("ttl", strconv.Itoa(int(c.TTLSeconds)))
	// Reverse names of the cluster's addresses only: others may exist outside.
	kubernetes.add("fallthrough", "in-addr.arpa", "ip6.arpa")
	kubernetes.add("kubeconfig", p.kubeconfig)
	out := block{zone: ".", directives: slices.Concat(
		common(p),
		[]directive{line("loadbalance")},
		platformZone(s),
		cached(c, s.ClusterDomain),
	)}
	if len(c.Hosts) > 0 {
		out.directives = append(out.directives, hosts(c.Hosts))
	}
	out.directives = append(out.directives, kubernetes)
	if len(p.upstreams) == 0 {
		return block{zone: ".", directives: append(out.directives, noUpstream())}
	}
	out.directives = append(out.directives, line("loop"), forward(".", p.upstreams))
	return out
}

func common(p place) []directive {
	errors := line("errors")
	// A machine without a network would otherwise fill the log.
	errors.add("consolidate", "5m", `".* i/o timeout$"`, "warning", "show_first")
	errors.add("consolidate", "5m", `".* (no route to host|network is unreachable|connection refused)$"`, "warning", "show_first")
	return []directive{line("prometheus", p.metrics), errors}
}

// platformZone sends the platform's domain and every name below it to the
// gateway, in the answer under the name that was asked for. The first rule
// changes nothing but denials: they get the zone that the client asked about as
// their authority, or strict resolvers would not believe them.
func platformZone(s battery.Site) []directive {
	domain, cluster := regexp.QuoteMeta(s.Domain), regexp.QuoteMeta(s.ClusterDomain)
	ours := `^(.*\.)?` + domain + `\.$`
	authority := line("rewrite", "continue")
	authority.add("name", "regex", ours, "{1}"+s.Domain+".", "answer", "name", "^"+cluster+`\.$`, s.Domain+".")
	gateway := line("rewrite", "stop")
	gateway.add("name", "regex", ours, gatewayService+"."+s.ClusterDomain+".", "answer", "auto")
	return []directive{authority, gateway}
}

// cached keeps answers from outside. The cluster's own come from memory anyway,
// and keeping them would only make them late.
func cached(c Config, except ...string) []directive {
	if c.CacheSeconds == 0 {
		return nil
	}
	d := line("cache", strconv.Itoa(int(c.CacheSeconds)))
	if len(except) > 0 {
		d.add(append([]string{"disable", "success"}, except...)...)
		d.add(append([]string{"disable", "denial"}, except...)...)
	}
	return []directive{d}
}

func hosts(names map[string][]string) directive {
	// The pod's own /etc/hosts, the default, is nobody's business.
	d := line("hosts", "/dev/null")
	for _, name := range slices.Sorted(maps.Keys(names)) {
		for _, addr := range names[name] {
			d.add(addr, name)
		}
	}
	d.add("reload", "0")
	d.add("fallthrough")
	return d
}

func forward(zone string, servers []string) directive {
	d := directive{words: append([]string{"forward", zone}, servers...)}
	// In the order given, as resolv.conf(5) promises: the first may know names
	// of a private network that the others deny.
	d.add("policy", "sequential")
	d.add("max_concurrent", "1000")
	return d
}

// noUpstream tells whoever asks about the outside that nobody could be asked,
// instead of refusing, which sends clients to other servers, or denying the name.
func noUpstream() directive {
	d := line("template", "ANY", "ANY", ".")
	d.add("rcode", "SERVFAIL")
	return d
}

func (b block) write(out *strings.Builder, port int) {
	fmt.Fprintf(out, "%s:%d {\n", b.zone, port)
	for _, d := range b.directives {
		fmt.Fprintf(out, "    %s", strings.Join(d.words, " "))
		if len(d.body) == 0 {
			out.WriteString("\n")
			continue
		}
		out.WriteString(" {\n")
		for _, words := range d.body {
			fmt.Fprintf(out, "        %s\n", strings.Join(words, " "))
		}
		out.WriteString("    }\n")
	}
	out.WriteString("}\n")
}
