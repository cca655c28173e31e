package client

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

func TestListeners(t *testing.T) {
	// As Linux prints it: a listener on every address, one on 127.0.0.1, one
	// on ::1, one on ::ffff:127.0.0.1, one on one address, an open connection.
	const text = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0000000000000000 100 0 0 10 0
   2: 0A00002A:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0000000000000000 100 0 0 10 0
   3: 0A00002A:A000 0100002A:01BB 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0000000000000000 100 0 0 10 0
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 2 0 100 0 0 10 0
   1: 00000000000000000000000001000000:1389 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 2 0 100 0 0 10 0
   2: 0000000000000000FFFF00000100007F:138A 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 2 0 100 0 0 10 0
`
	if diff := cmp.Diff([]int32{80, 3000}, listeners(strings.NewReader(text))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The text comes from inside the app's container: anything may be in it.
func FuzzListeners(f *testing.F) {
	f.Add("   0: 00000000:0050 00000000:0000 0A x")
	f.Add("   0: 0:FFFFF 0 0A\n 1: :: 0 0A\n 2: zz:0050 0 0A")
	f.Fuzz(func(t *testing.T, s string) {
		for _, port := range listeners(strings.NewReader(s)) {
			if port < 1 || port > 65535 {
				t.Errorf("port %d", port)
			}
		}
	})
}

func TestUserKind(t *testing.T) {
	for user, want := range map[string]v1alpha1.ImageUserKind{
		"": v1alpha1.UserRoot, "0": v1alpha1.UserRoot, "root": v1alpha1.UserRoot, "0:1000": v1alpha1.UserRoot, "root:root": v1alpha1.UserRoot,
		"00": v1alpha1.UserRoot, "1000": v1alpha1.UserNumeric, "65532:65532": v1alpha1.UserNumeric, "1000:0": v1alpha1.UserNumeric,
		"node": v1alpha1.UserNamed, "www-data:www-data": v1alpha1.UserNamed, "-1": v1alpha1.UserNamed,
	} {
		if got := UserKind(user); got != want {
			t.Errorf("UserKind(%q) = %s, want %s", user, got, want)
		}
	}
}

func TestExposedPort(t *testing.T) {
	tests := map[string]int32{"": 0, "80": 80, "80/tcp": 80, "53/udp": 0, "80 443": 0, "80/tcp 53/udp": 80, "0": 0, "70000": 0, "x": 0}
	for exposed, want := range tests {
		config := ocispecs.ImageConfig{ExposedPorts: map[string]struct{}{}}
		for _, p := range strings.Fields(exposed) {
			config.ExposedPorts[p] = struct{}{}
		}
		if got := ExposedPort(config); got != want {
			t.Errorf("%q: got %d, want %d", exposed, got, want)
		}
	}
}
