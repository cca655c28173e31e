package registry

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

func TestTinyImage(t *testing.T) {
	m, ok := machines[runtime.GOARCH]
	if !ok {
		t.Skipf("no program is known for %s", runtime.GOARCH)
	}
	path := filepath.Join(t.TempDir(), "exit")
	if err := os.WriteFile(path, m.program(), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path).CombinedOutput(); err != nil {
		t.Errorf("the program ends with %v: %s", err, out)
	}
	for architecture := range machines {
		a, err := newTinyImage(architecture, "a")
		if err != nil {
			t.Fatal(err)
		}
		b, err := newTinyImage(architecture, "b")
		if err != nil {
			t.Fatal(err)
		}
		if string(a.layer) == string(b.layer) || string(a.config) == string(b.config) {
			t.Error("two images are the same: the second would never be pulled")
		}
	}
	if _, err := newTinyImage("abacus", ""); err == nil {
		t.Error("an image for an abacus was made")
	}
}
