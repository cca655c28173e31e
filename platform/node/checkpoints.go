package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// checkpoints are the files in which the kubelet notes what it gave to which
// pod. It ends the whole process when it cannot read one.
var checkpoints = []string{
	"cpu_manager_state", "memory_manager_state", "dra_manager_state", "allocated_pods_state", "actuated_pods_state",
}

// dropDamaged removes what a power loss left half-written and the kubelet would
// stumble over. All of it is made anew: checkpoints from the pods that are
// there, certificates by asking for others.
func dropDamaged(o Options) error {
	damaged := map[string]func([]byte) bool{}
	for _, name := range checkpoints {
		damaged[filepath.Join(o.Dirs.Kubelet(), name)] = func(raw []byte) bool { return !json.Valid(raw) }
	}
	for _, name := range []string{"kubelet-client-current.pem", "kubelet-server-current.pem"} {
		damaged[filepath.Join(o.Dirs.KubeletPKI(), name)] = func(raw []byte) bool {
			_, certErr := certutil.ParseCertsPEM(raw)
			_, keyErr := keyutil.ParsePrivateKeyPEM(raw)
			return certErr != nil || keyErr != nil
		}
	}
	for path, bad := range damaged {
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at the kubelet's state: %w", err)
		}
		if !bad(raw) {
			continue
		}
		o.Log.Warn("a file is damaged: the kubelet makes it anew", "file", path)
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove the kubelet's damaged state: %w", err)
		}
	}
	return nil
}
