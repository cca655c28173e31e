package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/emerald-platform/emerald/kit/durable"
	"github.com/emerald-platform/emerald/platform/cgroup"
	"github.com/emerald-platform/emerald/platform/dirs"
)

// Machine is one machine of a lab: what a computer is to Emerald, without the
// computer.
type Machine struct {
	Name string
	// Dirs are its directories, Home that of the person who sits before it.
	Dirs dirs.Dirs
	Home string
	// Address is how the host and the other machines reach it.
	Address net.IP

	lab *Lab
	ns  *namespace
}

// AddMachine makes a machine that can reach the host, and through it whatever
// the host reaches. Nothing runs on it yet.
func (l *Lab) AddMachine(name string) (*Machine, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	number := len(l.machines) + 1
	m := &Machine{
		Name: name, lab: l, Home: filepath.Join(l.data, name, "home"),
		Dirs:    dirs.Dirs{Data: filepath.Join(l.data, name, "data"), Run: filepath.Join(l.run, name)},
		Address: net.IPv4(198, 18, byte(l.id), byte(number*4+2)).To4(),
	}
	if err := os.MkdirAll(m.Home, 0o755); err != nil {
		return nil, fmt.Errorf("make machine %q: %w", name, err)
	}
	ns, err := newNamespace(filepath.Join(l.run, name+".net"))
	if err != nil {
		return nil, fmt.Errorf("make machine %q: %w", name, err)
	}
	m.ns = ns
	l.machines = append(l.machines, m)
	if err := m.plugIn(number); err != nil {
		return nil, fmt.Errorf("connect machine %q: %w", name, err)
	}
	return m, nil
}

// plugIn connects the machine to the host by a cable of its own.
func (m *Machine) plugIn(number int) error {
	hostEnd := fmt.Sprintf("emlab%d-%d", m.lab.id, number)
	gateway := slices.Clone(m.Address)
	gateway[3]--
	f, err := os.Open(m.ns.path)
	if err != nil {
		return err
	}
	defer f.Close()
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: hostEnd, MTU: 1500}, PeerName: "eth0", PeerNamespace: netlink.NsFd(f.Fd())}
	if err := netlink.LinkAdd(cable); err != nil {
		return err
	}
	if err := setUp(hostEnd, gateway); err != nil {
		return err
	}
	return m.ns.do(func() error {
		// Its addresses and routes would turn up some moments later.
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", []byte("1"), 0o644); err != nil {
			return err
		}
		if err := setUp("eth0", m.Address); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Gw: gateway})
	})
}

// setUp gives a link its address in a network of four and brings it up.
func setUp(name string, ip net.IP) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(30, 32)}}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// Command returns a command that a person at the machine would type. Start or
// run it with [Machine.Run].
func (m *Machine) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "HOME="+m.Home, "EMERALD_DATA="+m.Dirs.Data, "EMERALD_RUN="+m.Dirs.Run, "KUBECONFIG=")
	return cmd
}

// Run runs the command on the machine and waits for it.
func (m *Machine) Run(cmd *exec.Cmd) error {
	if err := m.ns.start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// UpFlags are what `emerald up` needs to know to be this machine.
func (m *Machine) UpFlags() []string {
	return []string{"--node", m.Name, "--address", m.Address.String(), "--cgroup-root", m.CgroupRoot()}
}

// Do runs f with the machine's network: one thread, not its goroutines.
func (m *Machine) Do(f func() error) error { return m.ns.do(f) }

// CgroupRoot is the control group that holds the machine's processes.
func (m *Machine) CgroupRoot() string { return m.tree().Root }

// Processes returns every process of the machine: those in its control groups,
// and those in its network namespace. Some may have ended meanwhile.
func (m *Machine) Processes() ([]int, error) {
	pids, err := m.tree().Processes("")
	if err != nil {
		return nil, fmt.Errorf("list the processes of machine %q: %w", m.Name, err)
	}
	outside, err := m.ns.processes()
	if err != nil {
		return nil, fmt.Errorf("list the processes of machine %q: %w", m.Name, err)
	}
	pids = append(pids, outside...)
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// Dial connects as a program on the machine would.
func (m *Machine) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return m.ns.dial(ctx, network, address)
}

// Kube returns the owner's way to the machine's cluster, from the host.
func (m *Machine) Kube() (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(m.Dirs.Data, "conf", "admin.kubeconfig"))
	if err != nil {
		return nil, fmt.Errorf("find the cluster of machine %q: %w", m.Name, err)
	}
	cfg.Host = fmt.Sprintf("https://%s:6443", m.Address)
	return cfg, nil
}

// WriteKubeconfig writes the owner's way to the machine's cluster, as the host
// reaches it, with the certificates inside.
func (m *Machine) WriteKubeconfig(path string) error {
	cfg, err := clientcmd.LoadFromFile(m.Dirs.InData("conf", "admin.kubeconfig"))
	if err != nil {
		return fmt.Errorf("find the cluster of machine %q: %w", m.Name, err)
	}
	if err := api.FlattenConfig(cfg); err != nil {
		return fmt.Errorf("read the owner's certificate: %w", err)
	}
	for _, c := range cfg.Clusters {
		c.Server = fmt.Sprintf("https://%s:6443", m.Address)
	}
	raw, err := clientcmd.Write(*cfg)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, raw, 0o600)
}

// powerOff ends everything that runs on the machine at once, as pulling its
// plug would, and takes its mounts, namespace and control groups away.
func (m *Machine) powerOff(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	var errs []error
	errs = append(errs, m.kill(ctx))
	for _, root := range []string{filepath.Join(m.lab.data, m.Name), m.Dirs.Run} {
		mounts, err := mountsUnder(root)
		errs = append(errs, err)
		for _, path := range mounts {
			if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
				errs = append(errs, fmt.Errorf("unmount %s: %w", path, err))
			}
		}
	}
	errs = append(errs, m.ns.remove())
	if tree := m.tree(); tree.Exists() {
		errs = append(errs, tree.Remove(ctx))
	}
	return errors.Join(errs...)
}

func (m *Machine) tree() cgroup.Tree {
	return cgroup.Tree{Root: fmt.Sprintf("/emerald-lab-%d-%s", m.lab.id, m.Name)}
}

// kill ends every process of the machine: those in its control groups, and
// those in its namespace that joined none yet, again until there is none.
func (m *Machine) kill(ctx context.Context) error {
	for {
		if err := m.tree().Kill(ctx, ""); err != nil {
			return err
		}
		pids, err := m.ns.processes()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("end process %d: %w", pid, err)
			}
		}
		// The kernel takes a moment to take down what was killed.
		select {
		case <-ctx.Done():
			return fmt.Errorf("power off machine %q: processes %v do not end", m.Name, pids)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
