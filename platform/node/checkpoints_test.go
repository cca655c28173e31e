package node

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/emerald-platform/emerald/platform/dirs"
)

func TestDropDamaged(t *testing.T) {
	tests := map[string]struct {
		reason, file, content string
		gone                  bool
	}{
		"good checkpoint":  {"it is the kubelet's", "cpu_manager_state", `{"policyName":"none"}`, false},
		"half checkpoint":  {"the kubelet would end the process", "cpu_manager_state", `{"policyNa`, true},
		"empty checkpoint": {"a power loss leaves this, too", "dra_manager_state", "", true},
		"half certificate": {"the kubelet asks for another", "pki/kubelet-client-current.pem", "-----BEGIN CERTIF", true},
		"somebody else's":  {"only what is known to be made anew is removed", "notes", "{", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := Options{Dirs: dirs.Dirs{Data: t.TempDir()}, Log: slog.New(slog.DiscardHandler)}
			path := filepath.Join(o.Dirs.Kubelet(), tt.file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := dropDamaged(o); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(path); os.IsNotExist(err) != tt.gone {
				t.Errorf("%s: %s is gone: %v, want %v", tt.reason, tt.file, os.IsNotExist(err), tt.gone)
			}
		})
	}
}
