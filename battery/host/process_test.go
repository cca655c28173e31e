package host

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMemoryLimit(t *testing.T) {
	for name, tc := range map[string]struct {
		file, content string
		want          int64
	}{
		"v2":          {cgroupLimits[0], "268435456\n", 268435456},
		"v2 no limit": {cgroupLimits[0], "max\n", 0},
		"v1":          {cgroupLimits[1], "268435456\n", 268435456},
		"v1 no limit": {cgroupLimits[1], "9223372036854771712\n", 0},
		"nonsense":    {cgroupLimits[0], "a lot\n", 0},
		"none":        {"sys/other", "1", 0},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			file := filepath.Join(root, tc.file)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := memoryLimit(root); got != tc.want {
				t.Errorf("limit %d, want %d", got, tc.want)
			}
		})
	}
}
