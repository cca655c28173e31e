package datapath_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/emerald-platform/emerald/platform/isolated"
	"github.com/emerald-platform/emerald/platform/network/datapath"
)

func TestMain(m *testing.M) { isolated.Main(m) }

// compareAddresses lets go-cmp look at netip's values.
var compareAddresses = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}

// cluster are the ranges of all pods.
var cluster = []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16"), netip.MustParsePrefix("fd00:42::/32")}

// uplink is the address of the machine, outside that of somebody beyond it.
var (
	uplink  = netip.MustParseAddr("192.0.2.1")
	outside = netip.MustParseAddr("192.0.2.2")
)

// world is a machine with an uplink to somebody outside, in namespaces of the
// test's own.
type world struct {
	*datapath.Datapath
	config  datapath.Config
	outside string // namespace
	dir     string
	pods    int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	isolated.Require(t)
	w := &world{dir: t.TempDir()}
	w.config = datapath.Config{
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.7.0/24"), netip.MustParsePrefix("fd00:42:7::/64")},
		MTU:      1400, StateDir: filepath.Join(w.dir, "state"),
	}
	w.Datapath = datapath.New(w.config)
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/"+name, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	w.outside = isolated.NetNS(t)
	link(t, w.outside)
	t.Cleanup(func() {
		if _, err := w.Collect(context.Background(), func(*datapath.Attachment) bool { return false }); err != nil {
			t.Error(err)
		}
		if err := datapath.RemoveTables(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// link connects the machine with the outside, which knows nothing of pods.
func link(t *testing.T, path string) {
	t.Helper()
	ns, err := netns.GetFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns)}); err != nil {
		t.Fatal(err)
	}
	near, err := netlink.LinkByName("uplink")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(near) })
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	far, err := inside.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	subnet := func(a netip.Addr) *netlink.Addr {
		return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}}
	}
	for _, err := range []error{
		netlink.AddrAdd(near, subnet(uplink)), netlink.LinkSetUp(near),
		inside.AddrAdd(far, subnet(outside)), inside.LinkSetUp(far),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// attach connects a new pod.
func (w *world) attach(t *testing.T, ports ...datapath.PortMapping) *datapath.Attachment {
	t.Helper()
	w.pods++
	name := fmt.Sprintf("pod-%d", w.pods)
	a := &datapath.Attachment{
		Container: name, Interface: "eth0", Pod: "default/" + name,
		NetNS: isolated.NetNS(t), Ports: ports,
	}
	if err := w.Attach(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	return a
}

// in runs f in a network namespace.
func in(t *testing.T, path string, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.GetFromPath(path)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// serve answers on a port of a namespace with the address it sees as the
// client's.
func serve(t *testing.T, path, network, address string) {
	t.Helper()
	in(t, path, func() error {
		if network == "udp" {
			conn, err := net.ListenPacket("udp", address)
			if err != nil {
				return err
			}
			t.Cleanup(func() { conn.Close() })
			go func() {
				for buf := make([]byte, 64); ; {
					_, from, err := conn.ReadFrom(buf)
					if err != nil {
						return
					}
					_, _ = conn.WriteTo([]byte(from.(*net.UDPAddr).IP.String()), from)
				}
			}()
			return nil
		}
		l, err := net.Listen(network, address)
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, conn.RemoteAddr().(*net.TCPAddr).IP.String())
				conn.Close()
			}
		}()
		return nil
	})
}

// ask connects from a namespace ("" is the machine) and returns what the
// server answers.
func ask(t *testing.T, path, network, address string, timeout time.Duration) (string, error) {
	t.Helper()
	var answer string
	var failure error
	f := func() error {
		conn, err := net.DialTimeout(network, address, timeout)
		if err != nil {
			failure = err
			return nil
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(timeout))
		if network == "udp" {
			if _, err := conn.Write([]byte("?")); err != nil {
				failure = err
				return nil
			}
		}
		buf := make([]byte, 64)
		n, err := conn.Read(buf)
		answer, failure = string(buf[:n]), err
		return nil
	}
	if path == "" {
		path = "/proc/self/ns/net"
	}
	in(t, path, f)
	return answer, failure
}

const (
	soon  = 2 * time.Second
	never = 300 * time.Millisecond
)

func TestPodsReachEachOther(t *testing.T) {
	w := newWorld(t)
	a, b := w.attach(t), w.attach(t)
	if err := w.SyncEgress(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	for i, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			server := net.JoinHostPort(b.Addresses[i].String(), "80")
			serve(t, b.NetNS, "tcp", server)
			tests := map[string]struct{ from, want string }{
				"pod to pod":         {a.NetNS, a.Addresses[i].String()},
				"pod to itself":      {b.NetNS, b.Addresses[i].String()},
				"the machine to pod": {"", ""},
			}
			for name, test := range tests {
				if family == "IPv6" && test.from == "" {
					continue // this machine has no address of that family
				}
				got, err := ask(t, test.from, "tcp", server, soon)
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if test.want != "" && got != test.want {
					t.Errorf("%s: the server saw %s, want %s", name, got, test.want)
				}
			}
		})
	}
}

func TestEgressIsMasqueraded(t *testing.T) {
	w := newWorld(t)
	a := w.attach(t)
	serve(t, w.outside, "tcp", "192.0.2.2:80")
	if _, err := ask(t, a.NetNS, "tcp", "192.0.2.2:80", never); err == nil {
		t.Error("reached the outside, which has no way back, without masquerading")
	}
	for range 2 { // the second time must change nothing
		if err := w.SyncEgress(t.Context(), cluster); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ask(t, a.NetNS, "tcp", "192.0.2.2:80", soon)
	if err != nil || got != uplink.String() {
		t.Errorf("the outside saw %q, want %s: %v", got, uplink, err)
	}
}

func TestSpoofedSourceIsDropped(t *testing.T) {
	w := newWorld(t)
	a, b := w.attach(t), w.attach(t)
	serve(t, b.NetNS, "udp", b.Addresses[0].String()+":53")
	in(t, a.NetNS, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 42, 7, 200), Mask: net.CIDRMask(32, 32)}})
	})
	received := make(chan net.Addr, 1)
	in(t, b.NetNS, func() error {
		conn, err := net.ListenPacket("udp4", ":5353")
		if err != nil {
			return err
		}
		t.Cleanup(func() { conn.Close() })
		go func() {
			if _, from, err := conn.ReadFrom(make([]byte, 64)); err == nil {
				received <- from
			}
		}()
		return nil
	})
	send := func(source net.IP) {
		in(t, a.NetNS, func() error {
			conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: source}, &net.UDPAddr{IP: b.Addresses[0].AsSlice(), Port: 5353})
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write([]byte("?"))
			return err
		})
	}
	send(net.IPv4(10, 42, 7, 200))
	send(a.Addresses[0].AsSlice())
	// Packets on one path keep their order, so what comes first tells.
	select {
	case from := <-received:
		if got := from.(*net.UDPAddr).IP.String(); got != a.Addresses[0].String() {
			t.Errorf("a packet from %s came through", got)
		}
	case <-time.After(soon):
		t.Error("not even the honest packet came through")
	}
}

func TestHostPorts(t *testing.T) {
	w := newWorld(t)
	tcp := datapath.PortMapping{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}
	udp := datapath.PortMapping{HostPort: 8053, ContainerPort: 53, Protocol: "udp"}
	only := datapath.PortMapping{HostPort: 9090, ContainerPort: 80, Protocol: "tcp", HostIP: netip.MustParseAddr("127.0.0.1")}
	a, b := w.attach(t, tcp, udp, only), w.attach(t)
	serve(t, a.NetNS, "tcp", ":80")
	serve(t, a.NetNS, "udp", a.Addresses[0].String()+":53")

	tests := map[string]struct {
		from, network, to string
		want              string // the client's address as the pod sees it, "any" or "" for refused
	}{
		"from outside, with the client's address": {w.outside, "tcp", "192.0.2.1:8080", outside.String()},
		"from the machine by its address":         {"", "tcp", "192.0.2.1:8080", "any"},
		"from the machine by loopback":            {"", "tcp", "127.0.0.1:8080", "any"},
		"from another pod":                        {b.NetNS, "tcp", "192.0.2.1:8080", b.Addresses[0].String()},
		"from the pod itself":                     {a.NetNS, "tcp", "192.0.2.1:8080", "any"},
		"over UDP from outside":                   {w.outside, "udp", "192.0.2.1:8053", outside.String()},
		"over UDP by loopback":                    {"", "udp", "127.0.0.1:8053", "any"},
		"bound to one address, by that":           {"", "tcp", "127.0.0.1:9090", "any"},
		"bound to one address, by another":        {w.outside, "tcp", "192.0.2.1:9090", ""},
		"a port nobody mapped":                    {w.outside, "tcp", "192.0.2.1:8081", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			timeout := soon
			if test.want == "" {
				timeout = never
			}
			got, err := ask(t, test.from, test.network, test.to, timeout)
			switch {
			case test.want == "" && err == nil:
				t.Errorf("answered %q, want refused", got)
			case test.want != "" && err != nil:
				t.Error(err)
			case test.want != "" && test.want != "any" && got != test.want:
				t.Errorf("the pod saw %s, want %s", got, test.want)
			}
		})
	}

	t.Run("pods can't reach the machine's loopback", func(t *testing.T) {
		serve(t, "/proc/self/ns/net", "tcp", "127.0.0.1:7070")
		in(t, a.NetNS, func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			far, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			// What an attacker with the right to change its network would do.
			if err := netlink.LinkSetDown(lo); err != nil {
				return err
			}
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/eth0/route_localnet", []byte("1"), 0); err != nil {
				return err
			}
			addrs, err := netlink.AddrList(lo, unix.AF_INET)
			if err != nil {
				return err
			}
			for _, addr := range addrs {
				if err := netlink.AddrDel(lo, &addr); err != nil {
					return err
				}
			}
			return netlink.RouteReplace(&netlink.Route{
				LinkIndex: far.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)},
				Gw: net.IPv4(169, 254, 1, 1), Flags: int(netlink.FLAG_ONLINK), Src: a.Addresses[0].AsSlice(),
			})
		})
		if got, err := ask(t, a.NetNS, "tcp", "127.0.0.1:7070", never); err == nil {
			t.Errorf("the machine's loopback answered %q", got)
		}
	})

	t.Run("a port moves to the pod that claims it last, and is freed", func(t *testing.T) {
		c := w.attach(t, tcp)
		serve(t, c.NetNS, "tcp", ":80")
		if err := w.Detach(t.Context(), a.Container, a.Interface); err != nil {
			t.Fatal(err)
		}
		if _, err := ask(t, w.outside, "tcp", "192.0.2.1:8080", soon); err != nil {
			t.Error(err)
		}
		if err := w.Detach(t.Context(), c.Container, c.Interface); err != nil {
			t.Fatal(err)
		}
		if _, err := ask(t, w.outside, "tcp", "192.0.2.1:8080", never); err == nil {
			t.Error("the port still answers")
		}
	})
}

func TestAttachIsAllOrNothing(t *testing.T) {
	w := newWorld(t)
	a := &datapath.Attachment{Container: "x", Interface: "eth0", NetNS: filepath.Join(w.dir, "no such file")}
	if err := w.Attach(t.Context(), a); !errors.Is(err, unix.ENOENT) {
		t.Errorf("attach to a namespace that is not there: %v", err)
	}
	left, err := w.Attachments()
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if _, err := netlink.LinkByName(datapath.LinkName("x", "eth0")); err == nil {
		t.Error("left a link behind")
	}
}

func TestDetachAcceptsAnything(t *testing.T) {
	w := newWorld(t)
	a := w.attach(t)
	if err := datapath.Check(a); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := w.Detach(t.Context(), a.Container, a.Interface); err != nil {
			t.Error(err)
		}
	}
	if err := datapath.Check(a); err == nil {
		t.Error("check finds what was detached")
	}
	// The state was lost, the link was not.
	b := w.attach(t)
	if err := os.Remove(filepath.Join(w.config.StateDir, "state.json")); err != nil {
		t.Fatal(err)
	}
	if err := w.Detach(t.Context(), b.Container, b.Interface); err != nil {
		t.Error(err)
	}
	if _, err := netlink.LinkByName(b.Link); err == nil {
		t.Error("left a link behind")
	}
}

func TestAttachTwiceStartsOver(t *testing.T) {
	w := newWorld(t)
	a := w.attach(t)
	again := &datapath.Attachment{Container: a.Container, Interface: a.Interface, NetNS: a.NetNS, Pod: a.Pod}
	if err := w.Attach(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	all, err := w.Attachments()
	if err != nil || len(all) != 1 {
		t.Errorf("attachments: %v %v, want one", all, err)
	}
}

func TestCollectFreesTheDead(t *testing.T) {
	w := newWorld(t)
	a, b := w.attach(t), w.attach(t)
	gone, err := w.Collect(t.Context(), func(x *datapath.Attachment) bool { return x.Container == a.Container })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]datapath.Attachment{*b}, gone, compareAddresses); diff != "" {
		t.Error(diff)
	}
	if err := datapath.Check(a); err != nil {
		t.Errorf("the living one: %v", err)
	}
}
