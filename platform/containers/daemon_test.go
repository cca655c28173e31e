package containers

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChildEnvironment(t *testing.T) {
	in := []string{
		"TERM=xterm", "NOTIFY_SOCKET=/run/x", "https_proxy=http://p:1", "EMERALD_DATA=/old", "PATH=/bin",
		orderVariable + "=secret", "EMERALD_DATA=/data",
	}
	want := []string{"EMERALD_DATA=/data", "PATH=/data/bin:/bin:/usr/sbin", "https_proxy=http://p:1"}
	got := childEnvironment(in, "/data/bin")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// The runtime may start the machine again, which starts the runtime again.
	if diff := cmp.Diff(want, childEnvironment(got, "/data/bin")); diff != "" {
		t.Errorf("a second time: %s", diff)
	}
}
