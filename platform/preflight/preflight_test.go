package preflight

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/isolated"
)

func TestMain(m *testing.M) { isolated.Main(m) }

// noon is the time on the test's clock.
var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// good is a host that nothing is wrong with.
func good() probes {
	return probes{
		user:       func() int { return 0 },
		exists:     func(string) bool { return true },
		read:       func(string) (string, error) { return "0\n", nil },
		writable:   func(string) bool { return true },
		nftVersion: func() (string, error) { return "v1.0.6", nil },
		overlay:    func(string) error { return nil },
		network:    func(context.Context) []lacking { return nil },
		controllers: func() ([]string, bool, error) {
			return []string{"cpuset", "cpu", "io", "memory", "pids"}, true, nil
		},
		portTaken: func(Port) (holder, bool) { return holder{}, false },
		disk:      func(string) (disk, error) { return disk{mount: "/", bytes: 50 << 30}, nil },
		memory:    func() (uint64, error) { return 4 << 30, nil },
		openFiles: func() (uint64, error) { return 1 << 20, nil },
		now:       func() time.Time { return noon },
		newest:    func(string) (time.Time, bool) { return noon.Add(-time.Minute), true },
	}
}

func options() Options {
	return Options{
		Dirs: dirs.Default, Built: noon.Add(-time.Hour * 24 * 30),
		Ports: []Port{{Network: "tcp", Number: 443, For: "the gateway"}, {Network: "tcp", Address: "127.0.0.1", Number: 2379, For: "the database"}},
	}
}

func TestCheck(t *testing.T) {
	broken := errors.New("operation not supported")
	tests := map[string]struct {
		reason string
		spoil  func(*probes, *Options)
		want   []string // parts of the problems, in order; none means fine
	}{
		"Good": {reason: "nothing is wrong", spoil: func(*probes, *Options) {}},
		"NotRoot": {
			reason: "without root nothing else is known, so nothing else is said",
			spoil: func(p *probes, _ *Options) {
				p.user = func() int { return 1000 }
				p.nftVersion = func() (string, error) { return "", broken }
			},
			want: []string{"it takes root to run containers: run it again with: sudo"},
		},
		"Everything": {
			reason: "all problems are named at once",
			spoil: func(p *probes, o *Options) {
				p.nftVersion = func() (string, error) { return "", broken }
				p.overlay = func(string) error { return broken }
				p.memory = func() (uint64, error) { return 512 << 20, nil }
				p.openFiles = func() (uint64, error) { return 256, nil }
			},
			want: []string{"apt-get install nftables", "modprobe overlay", "512.0 MiB of memory, 1.0 GiB are needed", "may open 256 files"},
		},
		"OldNft":     {spoil: func(p *probes, _ *Options) { p.nftVersion = func() (string, error) { return "v1.0.0", nil } }, want: []string{"nft v1.0.0 is too old"}},
		"AncientNft": {spoil: func(p *probes, _ *Options) { p.nftVersion = func() (string, error) { return "v0.9.8", nil } }, want: []string{"nft v0.9.8 is too old"}},
		"NextNft":    {reason: "a newer major version is not older", spoil: func(p *probes, _ *Options) { p.nftVersion = func() (string, error) { return "v2.0", nil } }},
		"LongRun": {
			spoil: func(_ *probes, o *Options) { o.Dirs.Run = "/" + strings.Repeat("x", dirs.MaxRun) },
			want:  []string{"too long for sockets"},
		},
		"NoNamespaces": {
			spoil: func(p *probes, _ *Options) { p.exists = func(path string) bool { return path != "/proc/self/ns/user" } },
			want:  []string{"the kernel has no user namespaces"},
		},
		"NoSeccomp": {
			spoil: func(p *probes, _ *Options) {
				p.exists = func(path string) bool { return path != "/proc/sys/kernel/seccomp" }
			},
			want: []string{"no seccomp filters"},
		},
		"NoVeth": {
			spoil: func(p *probes, _ *Options) {
				p.network = func(context.Context) []lacking { return []lacking{{"make veth links", "veth", broken}} }
			},
			want: []string{"the kernel can't make veth links: operation not supported: load the module: modprobe veth"},
		},
		"NoForwarding": {
			spoil: func(p *probes, _ *Options) { p.writable = func(string) bool { return false } },
			want:  []string{"does not forward packets"},
		},
		"ForwardingAlready": {
			reason: "what is set already need not be changed",
			spoil: func(p *probes, _ *Options) {
				p.writable = func(string) bool { return false }
				p.read = func(string) (string, error) { return "1\n", nil }
			},
		},
		"NoMemoryController": {
			spoil: func(p *probes, _ *Options) {
				p.controllers = func() ([]string, bool, error) { return []string{"cpuset", "cpu", "pids"}, true, nil }
			},
			want: []string{"cgroup controllers are missing: memory: boot with the kernel parameters: cgroup_enable=memory"},
		},
		"OldCgroups": {
			reason: "version 1 needs others",
			spoil: func(p *probes, _ *Options) {
				p.controllers = func() ([]string, bool, error) {
					return []string{"cpuset", "cpu", "cpuacct", "memory", "pids", "freezer"}, false, nil
				}
			},
			want: []string{"cgroup controllers are missing: devices"},
		},
		"NoCgroups": {
			spoil: func(p *probes, _ *Options) {
				p.controllers = func() ([]string, bool, error) { return nil, false, errors.New("nothing is mounted") }
			},
			want: []string{"there are no cgroups: nothing is mounted: mount them"},
		},
		"PortOfService": {
			spoil: func(p *probes, _ *Options) {
				p.portTaken = func(port Port) (holder, bool) { return holder{812, "nginx", "nginx.service"}, port.Number == 443 }
			},
			want: []string{"port 443 (tcp) is taken by nginx (process 812), the gateway needs it: stop it: systemctl disable --now nginx.service"},
		},
		"PortOfNobody": {
			spoil: func(p *probes, _ *Options) {
				p.portTaken = func(port Port) (holder, bool) { return holder{}, port.Number == 2379 }
			},
			want: []string{"port 127.0.0.1:2379 (tcp) is taken, the database needs it: find out who listens: ss -lpn"},
		},
		"DiskFull": {
			spoil: func(p *probes, _ *Options) {
				p.disk = func(string) (disk, error) { return disk{bytes: 1 << 30, inodes: 10, inodesTotal: 100}, nil }
			},
			want: []string{"has 1.0 GiB left, 5.0 GiB are needed", "has room for 10 more files"},
		},
		"DiskReadOnly": {
			spoil: func(p *probes, _ *Options) {
				p.disk = func(string) (disk, error) {
					return disk{mount: "/var", bytes: 50 << 30, readOnly: true, noExec: true}, nil
				}
			},
			want: []string{"is read-only", "mount -o remount,exec /var"},
		},
		"ClockBeforeBuild": {
			spoil: func(p *probes, _ *Options) { p.now = func() time.Time { return time.Unix(0, 0) } },
			want:  []string{"the clock says 1970-01-01 00:00 UTC, but this program was made on 2026-05-02"},
		},
		"ClockBeforeData": {
			spoil: func(p *probes, _ *Options) {
				p.newest = func(string) (time.Time, bool) { return noon.Add(48 * time.Hour), true }
			},
			want: []string{"the platform's data was written on 2026-06-03 12:00 UTC: set it: timedatectl"},
		},
		"ClockAlmostRight": {
			reason: "clocks differ a little",
			spoil: func(p *probes, _ *Options) {
				p.newest = func(string) (time.Time, bool) { return noon.Add(time.Minute), true }
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p, o := good(), options()
			test.spoil(&p, &o)
			err := check(t.Context(), o, p)
			if len(test.want) == 0 {
				if err != nil {
					t.Errorf("%s: %v", test.reason, err)
				}
				return
			}
			var failed *Error
			if !errors.As(err, &failed) {
				t.Fatalf("%s: got %v, want an Error", test.reason, err)
			}
			if len(failed.Problems) != len(test.want) {
				t.Fatalf("%s: got %v, want %d problems", test.reason, failed, len(test.want))
			}
			for i, want := range test.want {
				if got := failed.Problems[i].String(); !strings.Contains(got, want) {
					t.Errorf("%s: problem %d is %q, want %q in it", test.reason, i, got, want)
				}
				if failed.Problems[i].Remedy == "" {
					t.Errorf("%s: problem %d has no remedy", test.reason, i)
				}
			}
		})
	}
}

// TestThisHost runs the real probes. Whatever they find, they must find it out
// and leave nothing.
func TestThisHost(t *testing.T) {
	isolated.Require(t)
	dir := t.TempDir()
	o := Options{Dirs: dirs.Dirs{Data: dir + "/data", Run: "/run/emerald"}, Built: time.Now()}
	if err := Check(t.Context(), o); err != nil {
		t.Errorf("this host runs the tests of containers, but: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestPortTaken(t *testing.T) {
	isolated.Require(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	number := l.Addr().(*net.TCPAddr).Port
	p := Port{Network: "tcp", Number: uint16(number)}
	got, taken := portTaken(p)
	if !taken || got.pid != os.Getpid() || got.name == "" {
		t.Errorf("port %d: %v %v, want this process", number, got, taken)
	}
	l.Close()
	if got, taken := portTaken(p); taken {
		t.Errorf("port %d: taken by %v, want free", number, got)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	_, port, _ := net.SplitHostPort(udp.LocalAddr().String())
	n, _ := strconv.Atoi(port)
	if got, taken := portTaken(Port{Network: "udp", Number: uint16(n)}); !taken || got.pid != os.Getpid() {
		t.Errorf("port %d over UDP: %v %v, want this process", n, got, taken)
	}
}
