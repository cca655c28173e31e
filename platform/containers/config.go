package containers

import (
	"bytes"
	"fmt"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"

	"github.com/emerald-platform/emerald/platform/containers/embedded"
	"github.com/emerald-platform/emerald/platform/dirs"
)

// configVersion is the newest version of containerd's configuration format,
// version.ConfigVersion of containerd 2.4.
const configVersion = 4

// config is the part of containerd's configuration that differs from its
// defaults.
type config struct {
	Version  int     `toml:"version"`
	Root     string  `toml:"root"`
	State    string  `toml:"state"`
	OOMScore int     `toml:"oom_score"`
	Plugins  plugins `toml:"plugins"`
}

type plugins struct {
	GRPC    serverConfig  `toml:"io.containerd.server.v1.grpc"`
	TTRPC   serverConfig  `toml:"io.containerd.server.v1.ttrpc"`
	Shims   shimConfig    `toml:"io.containerd.shim.v1.manager"`
	Images  imagesConfig  `toml:"io.containerd.cri.v1.images"`
	Runtime runtimeConfig `toml:"io.containerd.cri.v1.runtime"`
	CRI     criConfig     `toml:"io.containerd.grpc.v1.cri"`
}

type serverConfig struct {
	Address string `toml:"address"`
}

type shimConfig struct {
	SocketDir string `toml:"socket_dir"`
}

type imagesConfig struct {
	Snapshotter      string            `toml:"snapshotter"`
	PinnedImages     map[string]string `toml:"pinned_images"`
	Registry         registryConfig    `toml:"registry"`
	DiscardUnpacked  bool              `toml:"discard_unpacked_layers"`
	MaxDownloads     int               `toml:"max_concurrent_downloads"`
	PullStallTimeout string            `toml:"image_pull_progress_timeout"`
}

type registryConfig struct {
	ConfigPath string `toml:"config_path"`
}

type runtimeConfig struct {
	EnableUnprivilegedPorts bool             `toml:"enable_unprivileged_ports"`
	EnableUnprivilegedICMP  bool             `toml:"enable_unprivileged_icmp"`
	RestrictOOMScoreAdj     bool             `toml:"restrict_oom_score_adj"`
	NetNSUnderStateDir      bool             `toml:"netns_mounts_under_state_dir"`
	EnableCRIU              bool             `toml:"enable_criu"`
	CNI                     cniConfig        `toml:"cni"`
	Containerd              containerdConfig `toml:"containerd"`
}

type cniConfig struct {
	BinDirs          []string `toml:"bin_dirs"`
	ConfDir          string   `toml:"conf_dir"`
	InternalLoopback bool     `toml:"use_internal_loopback"`
}

type containerdConfig struct {
	DefaultRuntime string             `toml:"default_runtime_name"`
	Runtimes       map[string]handler `toml:"runtimes"`
}

type handler struct {
	Type    string      `toml:"runtime_type"`
	Path    string      `toml:"runtime_path"`
	Options runcOptions `toml:"options"`
}

type runcOptions struct {
	BinaryName    string `toml:"BinaryName"`
	Root          string `toml:"Root"`
	SystemdCgroup bool   `toml:"SystemdCgroup"`
}

type criConfig struct {
	DisableTCPService bool `toml:"disable_tcp_service"`
}

// renderConfig returns containerd's configuration for a machine. canRaise says
// whether this process may give others a better place in front of the kernel's
// out-of-memory killer (CAP_SYS_RESOURCE).
func renderConfig(d dirs.Dirs, pauseImage string, canRaise bool) ([]byte, error) {
	c := config{
		Version: configVersion,
		Root:    d.ContainerdRoot(),
		State:   d.ContainerdState(),
		Plugins: plugins{
			GRPC:  serverConfig{Address: d.ContainerdSocket()},
			TTRPC: serverConfig{Address: d.ContainerdSocket() + ".ttrpc"},
			Shims: shimConfig{SocketDir: d.ShimSockets()},
			Images: imagesConfig{
				Snapshotter:  "overlayfs",
				PinnedImages: map[string]string{"sandbox": pauseImage},
				Registry:     registryConfig{ConfigPath: d.RegistryHosts()},
				// A layer that is unpacked is never read again from its
				// archive: keeping it would double the disk an image takes.
				DiscardUnpacked:  true,
				MaxDownloads:     3,
				PullStallTimeout: "5m0s",
			},
			Runtime: runtimeConfig{
				EnableUnprivilegedPorts: true,
				EnableUnprivilegedICMP:  true,
				RestrictOOMScoreAdj:     !canRaise,
				NetNSUnderStateDir:      true,
				CNI: cniConfig{
					BinDirs:          []string{d.CNIBin()},
					ConfDir:          d.CNIConfig(),
					InternalLoopback: true,
				},
				Containerd: containerdConfig{
					DefaultRuntime: "runc",
					Runtimes: map[string]handler{"runc": {
						Type: "io.containerd.runc.v2",
						Path: filepath.Join(d.Bin(), embedded.Shim),
						Options: runcOptions{
							BinaryName: filepath.Join(d.Bin(), embedded.Runc),
							Root:       d.Runc(),
						},
					}},
				},
			},
			CRI: criConfig{DisableTCPService: true},
		},
	}
	if canRaise {
		c.OOMScore = -999
	}
	var out bytes.Buffer
	out.WriteString("# Written by emerald at every start: changes are lost.\n")
	if err := toml.NewEncoder(&out).Encode(c); err != nil {
		return nil, fmt.Errorf("render containerd's configuration: %w", err)
	}
	return out.Bytes(), nil
}
