package client

import (
	"errors"
	"testing"
)

// What BuildKit says is put into words for who wrote the Dockerfile.
func TestRootCause(t *testing.T) {
	tests := map[string]struct{ err, want string }{
		"nothing to add":  {"exit code: 2", "exit code: 2"},
		"wrapped":         {`failed to solve: rpc error: code = Unknown desc = exit code: 2`, "exit code: 2"},
		"parse error":     {"dockerfile parse error: unknown instruction: RUNN", "unknown instruction: RUNN"},
		"COPY of nothing": {`failed to solve: failed to compute cache key: failed to calculate checksum of ref a::b: "/nothing": not found`, `"/nothing" is not in the folder that is built, or its .dockerignore leaves it out`},
		"no base image": {
			"nosuch/base:9: failed to resolve source metadata for docker.io/nosuch/base:9: unexpected status from HEAD request to https://registry.emerald.localhost/v2/docker.io/nosuch/base/manifests/9?ns=docker.io: 502 Bad Gateway (no base image that can be made here: known here are busybox, debian)",
			"base image docker.io/nosuch/base:9 cannot be had: its registry cannot be reached from here (no base image that can be made here: known here are busybox, debian)"},
		"too large": {
			"failed to push registry.emerald.localhost/default/big:latest: unknown: this blob is larger than the 4 MiB a blob may have",
			"push registry.emerald.localhost/default/big:latest: this blob is larger than the 4 MiB a blob may have"},
		"no room": {
			"failed to copy: write /var/lib/x: no space left on device",
			"the disk of the machine that builds is full: make room on it; what builds keep goes with: emerald registry gc"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cause := errors.New(tt.err)
			if got := rootCause(cause); got.Error() != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
