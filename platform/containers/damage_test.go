package containers

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/emerald-platform/emerald/platform/dirs"
)

func TestWhyEnded(t *testing.T) {
	tests := map[string]struct {
		words, why string
		damaged    bool
	}{
		"a page":        {"{\"level\":\"WARN\"}\npanic: page 7 already freed\n\ngoroutine 1 [running]:\ngo.etcd.io/bbolt.(*freelist).Free()\n", "panic: page 7 already freed", true},
		"not its own":   {"emerald: open meta.db: invalid database\n", "open meta.db: invalid database", true},
		"cut short":     {"emerald: file size too small 4096\n", "file size too small 4096", true},
		"anything else": {"emerald: listen unix: address in use\n", "listen unix: address in use", false},
		"nothing":       {"", "", false},
	}
	for name, tt := range tests {
		if got := whyEnded(tt.words); got != tt.why {
			t.Errorf("%s: got %q, want %q", name, got, tt.why)
		}
		if got := damage.MatchString(tt.words); got != tt.damaged {
			t.Errorf("%s: damaged %v, want %v", name, got, tt.damaged)
		}
	}
}

func TestPutAway(t *testing.T) {
	run, err := os.MkdirTemp("", "run") // short: sockets live in it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(run)
	d := dirs.Dirs{Data: t.TempDir(), Run: run}
	for _, dir := range []string{d.ContainerdRoot(), d.ShimSockets()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// A socket whose process was killed, and one of a process that lives.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(d.ShimSockets(), "dead")})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	alive, err := net.Listen("unix", filepath.Join(d.ShimSockets(), "alive"))
	if err != nil {
		t.Fatal(err)
	}
	if err := putAway(d); !errors.Is(err, errInUse) {
		t.Errorf("with a container that lives: %v, want %v", err, errInUse)
	}
	if _, err := os.Stat(d.ContainerdRoot()); err != nil {
		t.Errorf("the state of a container that lives: %v", err)
	}
	alive.Close()
	if err := putAway(d); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.ContainerdRoot() + ".damaged"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(d.ContainerdRoot()); !os.IsNotExist(err) {
		t.Errorf("the damaged state is still there: %v", err)
	}
}
