package wipe_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/emerald-platform/emerald/platform/cgroup"
	"github.com/emerald-platform/emerald/platform/containers"
	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/isolated"
	"github.com/emerald-platform/emerald/platform/network/datapath"
	"github.com/emerald-platform/emerald/platform/selfimage"
	"github.com/emerald-platform/emerald/platform/sysctl"
	"github.com/emerald-platform/emerald/platform/wipe"
)

func TestMain(m *testing.M) {
	isolated.Main(m, isolated.Program{Name: "containerd", Run: containers.Main})
}

func options(t *testing.T) wipe.Options {
	t.Helper()
	isolated.Require(t)
	tree := isolated.Cgroups(t)
	return wipe.Options{Dirs: isolated.Dirs(t), CgroupRoot: tree.Root, Log: slog.New(slog.DiscardHandler)}
}

func snapshot(t *testing.T, o wipe.Options) wipe.Snapshot {
	t.Helper()
	own := []string{filepath.Dir(o.Dirs.Data)}
	s, err := wipe.Take(wipe.Scope{Files: own, Mounts: own, Cgroups: []string{o.CgroupRoot}, Settings: []string{"net"}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run makes a machine with a pod: a runtime, a container that ignores SIGTERM,
// a link, rules, settings and mounts.
func run(t *testing.T, o wipe.Options) {
	t.Helper()
	if err := wipe.Note(o.Dirs); err != nil {
		t.Fatal(err)
	}
	tree := cgroup.Tree{Root: o.CgroupRoot}
	if err := tree.Create("kubepods"); err != nil {
		t.Fatal(err)
	}
	if err := (sysctl.Record{Path: o.Dirs.Sysctls()}).Set("net/ipv4/ip_forward", "1"); err != nil {
		t.Fatal(err)
	}
	rt, err := containers.Start(t.Context(), containers.Options{Dirs: o.Dirs, CgroupRoot: o.CgroupRoot, Log: o.Log})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	if _, err := selfimage.Ensure(t.Context(), rt, o.Dirs, nil, o.Log); err != nil {
		t.Fatal(err)
	}
	conf := datapath.Config{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/24")}, MTU: 1500, StateDir: o.Dirs.Network()}
	network := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"emerald","plugins":[{"type":"emerald-cni","capabilities":{"portMappings":true},"podCIDRs":["10.42.0.0/24"],"mtu":1500,"stateDir":%q}]}`, conf.StateDir)
	if err := os.WriteFile(filepath.Join(o.Dirs.CNIConfig(), "10-emerald.conflist"), []byte(network), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := datapath.New(conf).SyncEgress(t.Context(), conf.PodCIDRs); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix://"+rt.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	pods := cri.NewRuntimeServiceClient(conn)
	uid := time.Now().String()
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, err := pods.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: &cri.PodSandboxConfig{
			Metadata:     &cri.PodSandboxMetadata{Name: "pod", Uid: uid, Namespace: "default"},
			Hostname:     "pod",
			LogDirectory: filepath.Join(o.Dirs.PodLogs(), "pod"),
			PortMappings: []*cri.PortMapping{{Protocol: cri.Protocol_TCP, ContainerPort: 80, HostPort: 8080}},
			Linux:        &cri.LinuxPodSandboxConfig{CgroupParent: o.CgroupRoot + "/kubepods"},
		}})
		if err == nil {
			break
		}
		// The runtime notices the network's configuration by itself.
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	volume := filepath.Join(o.Dirs.Kubelet(), "pods", `a volume`)
	if err := os.MkdirAll(volume, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 { // stacked
		if err := unix.Mount("tmpfs", volume, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWipeLeavesNothing(t *testing.T) {
	crash := map[string]func(t *testing.T, o wipe.Options){
		"while everything runs": func(*testing.T, wipe.Options) {},
		"after the runtime was killed": func(t *testing.T, o wipe.Options) {
			kill(t, o, cgroup.Runtime)
		},
		"after everything was killed": func(t *testing.T, o wipe.Options) {
			kill(t, o, "")
		},
		"after the state was lost": func(t *testing.T, o wipe.Options) {
			if err := os.RemoveAll(o.Dirs.Network()); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(o.Dirs.ContainerdLock()); err != nil {
				t.Fatal(err)
			}
		},
		"after its data was deleted by hand": func(t *testing.T, o wipe.Options) {
			kill(t, o, "")
			for _, dir := range []string{o.Dirs.Containerd(), o.Dirs.Node(), o.Dirs.Bin()} {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			}
		},
	}
	for name, crash := range crash {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0); err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, o)
			run(t, o)
			if len(wipe.Diff(before, snapshot(t, o))) < 10 {
				t.Error("the machine leaves too little to test a wipe with")
			}
			if err := wipe.Left(o); !errors.As(err, new(*wipe.LeftError)) {
				t.Errorf("left while running: %v", err)
			}
			crash(t, o)
			began := time.Now()
			if err := wipe.All(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			t.Logf("wipe took %v", time.Since(began))
			diff := wipe.Diff(before, snapshot(t, o))
			if name == "after its data was deleted by hand" {
				// With the record gone, nobody knows what the setting was.
				diff = without(diff, "setting net/ipv4/")
			}
			for _, line := range diff {
				t.Error(line)
			}
			if err := wipe.All(t.Context(), o); err != nil {
				t.Errorf("wipe again: %v", err)
			}
		})
	}
}

func kill(t *testing.T, o wipe.Options, sub string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := (cgroup.Tree{Root: o.CgroupRoot}).Kill(ctx, sub); err != nil {
		t.Fatal(err)
	}
}

func without(lines []string, part string) []string {
	var out []string
	for _, l := range lines {
		if len(l) < 2 || len(l[2:]) < len(part) || l[2:2+len(part)] != part {
			out = append(out, l)
		}
	}
	return out
}

func TestDownKeepsData(t *testing.T) {
	o := options(t)
	run(t, o)
	data := filepath.Join(o.Dirs.Data, "precious")
	if err := os.WriteFile(data, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := wipe.Down(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(data); err != nil {
		t.Error(err)
	}
	// The same machine comes up again.
	run(t, o)
}

func TestOthersAreLeftAlone(t *testing.T) {
	o := options(t)
	run(t, o)
	// Somebody else's table, process and mount, with names like ours.
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	foreign := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "emeraldish"})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	defer func() { conn.DelTable(foreign); _ = conn.Flush() }()
	other := exec.Command("sleep", "60")
	other.Args[0] = "emerald"
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	beside := o.Dirs.Data + "-beside"
	if err := os.Mkdir(beside, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", beside, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(beside, 0) }()

	if err := wipe.All(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := other.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("somebody else's process: %v", err)
	}
	if err := unix.Unmount(beside, 0); err != nil {
		t.Errorf("somebody else's mount: %v", err)
	}
	tables, err := conn.ListTables()
	if err != nil || len(tables) != 1 {
		t.Errorf("tables: %v %v, want somebody else's one", tables, err)
	}
}

func TestRefusesDirectoriesThatCantBeMeant(t *testing.T) {
	for _, d := range []dirs.Dirs{{}, {Data: "/", Run: "/run/x"}, {Data: "/var", Run: "/run/x"}, {Data: "/var/lib/..", Run: "/run/x"}, {Data: "var/lib/x", Run: "/run/x"}} {
		if err := wipe.All(t.Context(), wipe.Options{Dirs: d, CgroupRoot: "/emerald-test"}); err == nil {
			t.Errorf("wiped %v", d)
		}
	}
}
