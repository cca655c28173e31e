package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/sys/user"

	"github.com/emerald-platform/emerald/kit/durable"
)

// Surroundings is what a build step gets from the machine for the time it
// runs. None of it becomes part of an image or of a cache key.
type Surroundings struct {
	// CA is the certificate authorities to trust, as PEM; empty for the base
	// image's own.
	CA []byte

	// Env holds variables such as HTTPS_PROXY and GOPROXY. A step's own
	// variables win.
	Env map[string]string
}

// stepsDir is where a step finds the files of its surroundings. /dev is a
// tmpfs of the step's own, so no mount point is left behind in the image.
const stepsDir = "/dev/emerald"

// authorities are the variables by which the usual tools are told of a
// certificate bundle. Replacing /etc/ssl/certs/ca-certificates.crt would reach
// more of them, but `apt-get install ca-certificates` renames a file over it,
// which a mount forbids.
var authorities = []string{
	"SSL_CERT_FILE",       // OpenSSL, Go, Ruby, PHP, Perl
	"CURL_CA_BUNDLE",      // curl
	"GIT_SSL_CAINFO",      // git
	"NODE_EXTRA_CA_CERTS", // Node.js, npm, yarn, pnpm
	"PIP_CERT",            // pip
	"REQUESTS_CA_BUNDLE",  // Python requests
	"CARGO_HTTP_CAINFO",   // cargo
	"AWS_CA_BUNDLE",       // AWS tools
	"DENO_CERT",           // Deno
}

// stepExecutor runs steps like the executor it wraps, inside their
// surroundings.
type stepExecutor struct {
	executor.Executor
	dir          string // holds one folder per content of the files
	surroundings func() Surroundings
	mu           sync.Mutex
}

// Run implements executor.Executor.
func (e *stepExecutor) Run(ctx context.Context, id string, rootfs executor.Mount, mounts []executor.Mount, process executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	s := e.surroundings()
	env := make(map[string]string, len(s.Env)+len(authorities))
	for k, v := range s.Env {
		env[k] = v
	}
	if len(s.CA) > 0 {
		dir, err := e.files(s.CA)
		if err != nil {
			return nil, err
		}
		for _, name := range authorities {
			env[name] = stepsDir + "/ca.crt"
		}
		env["APT_CONFIG"] = stepsDir + "/apt.conf"
		env["WGETRC"] = stepsDir + "/wgetrc"
		mounts = append(slices.Clip(mounts), executor.Mount{Src: readOnlyDir(dir), Dest: stepsDir, Readonly: true})
	}
	process.Meta.Env = withDefaults(process.Meta.Env, env)
	return e.Executor.Run(ctx, id, rootfs, mounts, process, started)
}

// files returns a folder with the bundle and with the settings of the tools
// that are told of a bundle by file. It is never changed once made, as steps
// may still be using it.
func (e *stepExecutor) files(ca []byte) (string, error) {
	sum := sha256.Sum256(ca)
	dir := filepath.Join(e.dir, hex.EncodeToString(sum[:8]))
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, err := os.Stat(filepath.Join(dir, "ca.crt")); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("create the steps' directory: %w", err)
	}
	for _, f := range []struct{ name, content string }{
		{"apt.conf", fmt.Sprintf("Acquire::https::CAInfo %q;\n", stepsDir+"/ca.crt")},
		{"wgetrc", "ca_certificate = " + stepsDir + "/ca.crt\n"},
		// Last: its presence says that the folder is whole.
		{"ca.crt", string(ca)},
	} {
		if err := durable.WriteFile(filepath.Join(dir, f.name), []byte(f.content), 0o644); err != nil {
			return "", fmt.Errorf("write the steps' %s: %w", f.name, err)
		}
	}
	return dir, nil
}

// withDefaults adds the variables that env does not set.
func withDefaults(env []string, defaults map[string]string) []string {
	out := slices.Clone(env)
	names := make([]string, 0, len(defaults))
	for name := range defaults {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, name+"=") }) {
			out = append(out, name+"="+defaults[name])
		}
	}
	return out
}

// readOnlyDir is a directory of the pod that can be mounted into a step.
type readOnlyDir string

// Mount implements executor.Mountable.
func (d readOnlyDir) Mount(context.Context, bool) (executor.MountableRef, error) {
	return dirRef(d), nil
}

type dirRef string

// Mount implements executor.MountableRef.
func (d dirRef) Mount() ([]mount.Mount, func() error, error) {
	return []mount.Mount{{Type: "bind", Source: string(d), Options: []string{"rbind", "ro", "nosuid", "nodev"}}},
		func() error { return nil }, nil
}

// IdentityMapping implements executor.MountableRef.
func (d dirRef) IdentityMapping() *user.IdentityMapping { return nil }
