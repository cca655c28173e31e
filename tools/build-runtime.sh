#!/bin/sh
# Builds what the machine process carries inside itself to run containers:
#   runc                      the OCI runtime, static, with seccomp (needs gcc and libseccomp-dev)
#   containerd-shim-runc-v2   the parent of every container, static
#   emerald-cni               the pod network plugin, static
#   pause                     the first process of every pod, static C
# Usage: tools/build-runtime.sh [DIR]   DIR defaults to platform/containers/embedded/bin
# GO may name another go command. Versions come from go.mod (tool directives).
set -eu
cd "$(dirname "$0")/.."
out=${1:-platform/containers/embedded/bin}
go=${GO:-go}
mkdir -p "$out"
out=$(cd "$out" && pwd)

runc_version=$($go list -m -f '{{.Version}}' github.com/opencontainers/runc)
CGO_ENABLED=1 $go build -trimpath -buildvcs=false -tags 'seccomp netgo osusergo urfave_cli_no_docs' \
	-ldflags "-s -w -X main.version=${runc_version#v} -extldflags -static" -o "$out/runc" github.com/opencontainers/runc

shim_version=$($go list -m -f '{{.Version}}' github.com/containerd/containerd/v2)
# no_grpc: the shim speaks ttrpc to containerd; gRPC would double its memory, which is paid once per pod.
CGO_ENABLED=0 $go build -trimpath -buildvcs=false -tags no_grpc \
	-ldflags "-s -w -X github.com/containerd/containerd/v2/version.Version=$shim_version" \
	-o "$out/containerd-shim-runc-v2" github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2

if [ -d cmd/emerald-cni ]; then
	CGO_ENABLED=0 $go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$out/emerald-cni" ./cmd/emerald-cni
fi

gcc -Os -static -nostdlib -nostartfiles -ffreestanding -fno-asynchronous-unwind-tables -fno-stack-protector \
	-Wall -Werror -Wl,--build-id=none -Wl,-z,noseparate-code -s -o "$out/pause" platform/containers/pause/pause.c
