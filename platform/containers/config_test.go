package containers

import (
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/emerald-platform/emerald/platform/dirs"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestRenderConfig(t *testing.T) {
	got, err := renderConfig(dirs.Default, "emerald.local/pause:0123456789ab", false)
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/config.toml"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("run the test with -update when this is meant:\n%s", diff)
	}
}

func TestLockTellsWhoRuns(t *testing.T) {
	o := order{Lock: t.TempDir() + "/lock", Identity: "x"}
	if h, err := readLock(o.Lock); h != nil || err != nil {
		t.Errorf("nobody ever ran: %v %v", h, err)
	}
	f, err := holdLock(o)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := readLock(o.Lock); err != nil || h == nil || h.PID != os.Getpid() || h.Identity != "x" {
		t.Errorf("while this runs: %v %v", h, err)
	}
	if _, err := holdLock(o); err == nil {
		t.Error("two hold the lock")
	}
	f.Close()
	if h, err := readLock(o.Lock); h != nil || err != nil {
		t.Errorf("after it ended: %v %v", h, err)
	}
}
