package sysctl_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emerald-platform/emerald/platform/isolated"
	"github.com/emerald-platform/emerald/platform/sysctl"
)

func TestMain(m *testing.M) { isolated.Main(m) }

const forward = "net/ipv4/ip_forward"

func value(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/sys/" + forward)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func TestRestore(t *testing.T) {
	isolated.Require(t)
	before := value(t)
	other := map[string]string{"0": "1", "1": "0"}[before]
	r := sysctl.Record{Path: filepath.Join(t.TempDir(), "node", "record.json")}
	if err := r.Set(forward, before); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.Path); err == nil {
		t.Error("what did not change was recorded")
	}
	if err := r.Set(forward, other); err != nil || value(t) != other {
		t.Fatalf("set: %v, value %s", err, value(t))
	}
	// What the platform set itself is not what was there before.
	if err := r.Remember(forward, "net/ipv4/no_such_setting"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Restore(); err != nil || value(t) != before {
			t.Errorf("restore: %v, value %s, was %s", err, value(t), before)
		}
	}
}

func TestRecordOfAnotherBootIsVoid(t *testing.T) {
	isolated.Require(t)
	before := value(t)
	r := sysctl.Record{Path: filepath.Join(t.TempDir(), "record.json")}
	for name, content := range map[string]string{
		"another boot": `{"boot":"x","values":{"net/ipv4/ip_forward":"7"}}`,
		"cut short":    `{"boot":`,
	} {
		if err := os.WriteFile(r.Path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := r.Restore(); err != nil || value(t) != before {
			t.Errorf("%s: %v, value %s, was %s", name, err, value(t), before)
		}
	}
}
