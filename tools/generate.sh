#!/bin/sh
# Writes what is generated from the API types: their deep copies and their
# CustomResourceDefinitions. Run by `make generate`, from anywhere; GO names the
# go command. The result is committed.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go}

"$go" -C tools build -o ../bin/controller-gen sigs.k8s.io/controller-tools/cmd/controller-gen
bin/controller-gen object crd:maxDescLen=600 paths=./api/... output:crd:dir=api/v1alpha1/crd

# The definitions of cert-manager's API, from its own types. Short descriptions:
# every API server keeps all of them in memory.
cm=github.com/cert-manager/cert-manager/pkg/apis
GOFLAGS=-mod=mod bin/controller-gen crd:maxDescLen=160 paths=$cm/certmanager/v1 paths=$cm/acme/v1 output:crd:dir=batteries/certs/crds
