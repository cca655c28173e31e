# Everything a person types. CI calls `make test`, the same as you do.

VERSION    ?= 0.1.0-dev
KUBERNETES := v1.37.2

# When the sources were committed. The time of the build would make each build
# another; without git the program does not know how old it is.
COMMITTED  := $(shell TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null)

# One set of build flags everywhere, or Go's cache is rebuilt from zero.
export CGO_ENABLED := 0
export GOFLAGS     := -trimpath -buildvcs=false

VERSION_PKG := k8s.io/component-base/version
LDFLAGS := -s -w \
  -X $(VERSION_PKG).gitVersion=$(KUBERNETES) -X $(VERSION_PKG).gitMajor=1 -X $(VERSION_PKG).gitMinor=37 \
  -X $(VERSION_PKG).gitTreeState=clean $(if $(COMMITTED),-X $(VERSION_PKG).buildDate=$(COMMITTED)) \
  -X k8s.io/client-go/pkg/version.gitVersion=$(KUBERNETES) \
  -X github.com/emerald-platform/emerald/platform/machine.Version=$(VERSION) \
  $(if $(COMMITTED),-X github.com/emerald-platform/emerald/platform/machine.Committed=$(COMMITTED))

RUNTIME := platform/containers/embedded/bin/runc

.PHONY: help
help: ## Show this list.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

.PHONY: up
up: build ## Install what is needed, build, boot, and deploy the first example.
	bin/emerald up
	bin/emerald deploy examples/go
	bin/emerald status

.PHONY: build
build: $(RUNTIME) ## Build bin/emerald.
	go build -ldflags '$(LDFLAGS)' -o bin/emerald ./cmd/emerald

.PHONY: deps
deps: ## Install the Debian packages that building and running take.
	tools/install-deps.sh

$(RUNTIME): go.mod tools/build-runtime.sh | deps
	tools/build-runtime.sh

.PHONY: generate
generate: ## Rewrite generated files.
	GO=go sh tools/generate.sh

.PHONY: clean
clean: ## Remove what building made.
	rm -rf bin platform/containers/embedded/bin/[!.]*

.PHONY: env
env: ## Print the build flags for a shell: eval "$(make env)".
	@echo 'export CGO_ENABLED=$(CGO_ENABLED) GOFLAGS="$(GOFLAGS)"'

.PHONY: test
test: unit e2e ## Everything CI runs: lint, unit tests, and whole machines in the lab.

.PHONY: lint
lint: ## go vet on our own packages, and gofmt.
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet -tags e2e ./...

.PHONY: unit
unit: $(RUNTIME) lint ## Unit tests.
	go test -vet=off $$(go list ./... | grep -v /e2e/)

# What has goroutines of ours. The race detector takes a C compiler, and a build
# cache of its own.
RACE ?= ./batteries/... ./battery/... ./kit/... ./lab/... ./platform/entry ./platform/containers/... ./platform/network/... ./platform/node ./platform/machine

.PHONY: race
race: $(RUNTIME) ## Unit tests under the race detector (takes long the first time).
	CGO_ENABLED=1 go test -race -vet=off $(RACE)

FUZZTIME ?= 30s

.PHONY: fuzz
fuzz: $(RUNTIME) ## Run every fuzz target for FUZZTIME.
	GO=go FUZZTIME=$(FUZZTIME) tools/fuzz.sh

.PHONY: conformance-oci
conformance-oci: ## The OCI distribution suite against our registry; writes docs/conformance/oci.md.
	GO=go e2e/oci-conformance/run docs/conformance/oci.md

.PHONY: conformance-kubernetes
conformance-kubernetes: build ## Upstream's conformance tests against the platform in the lab; writes docs/conformance/kubernetes.md (root).
	GO=go e2e/kubernetes-conformance/run docs/conformance/kubernetes.md

.PHONY: conformance-gateway
conformance-gateway: build ## The Gateway API suite against the platform in the lab; writes docs/conformance/gateway.md (root).
	GO=go e2e/gateway-conformance/run docs/conformance/gateway.md

.PHONY: e2e
e2e: build ## Boot whole machines in the lab and do whole jobs on them (root).
	EMERALD_BIN=$(CURDIR)/bin/emerald go test -vet=off -count=1 -p 1 -timeout 40m -tags e2e ./e2e/...

.PHONY: chaos
chaos: build ## Kill parts of a machine in the middle of deploys, ROUNDS times, from SEED; adds to docs/chaos.md (root).
	EMERALD_BIN=$(CURDIR)/bin/emerald ROUNDS=$(or $(ROUNDS),100) SEED=$(SEED) CHAOS_TABLE=$(CURDIR)/docs/chaos.md \
	  go test -vet=off -count=1 -v -timeout 3h -tags e2e -run '^TestChaos$$' ./e2e/chaos

.PHONY: bench
bench: build ## Measure beside upstream and other proxies; writes bench/README.md (ONLY=start,memory,deploy,gateway,size,build).
	go build -o bin/bench/bench ./bench
	bin/bench/bench -emerald bin/emerald -ldflags '$(LDFLAGS)' -only '$(ONLY)'
