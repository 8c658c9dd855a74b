# topolet: `make help` lists the targets.

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

# The same flags everywhere: what one target compiles, the others use again. The
# race detector alone needs others.
export CGO_ENABLED = 0
export GOFLAGS = -trimpath

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)

##@ Build

.PHONY: build
build: ## Build the static topolet binary into bin/.
	go build -ldflags '$(LDFLAGS)' -o bin/topolet ./cmd/topolet

##@ Test

.PHONY: test
test: test-unit test-deploy ## Everything that can run here; as root also on a real cluster.
	@if [ "$$(id -u)" = 0 ]; then \
		$(MAKE) --no-print-directory test-e2e; \
	else \
		echo 'test: not root: the end-to-end tests were skipped; run them with sudo env "PATH=$$PATH" make test-e2e'; \
	fi

.PHONY: test-unit
test-unit: ## Unit and property tests with the race detector; needs no root.
	CGO_ENABLED=1 go test -race ./...
	go test ./draplugin -run AnyMachine -machines 2000
	go test ./allocator -run MustNeverBe -steps 100000
	go -C test/testbed test ./...

.PHONY: test-e2e
test-e2e: testbed-build numa-packages ## End-to-end tests on real clusters of their own (needs root).
	@$(MAKE) --no-print-directory -j2 test-on-machine test-on-host
	@$(MAKE) --no-print-directory testbed-test

# The two run side by side: an emulated machine takes one CPU of this host, however many it
# has, and leaves room for the other tests. Two such machines would not: the testbed's own
# tests, which start one, come afterwards.
# gotestsum tells at the end once more what failed, and why.
E2E = $(call GO_TOOL,gotestsum) --format standard-verbose -- -tags e2e -count=1 -timeout 80m

.PHONY: test-on-machine
test-on-machine:
	$(E2E) -run '^TestNUMAMachine$$' ./test/e2e -state /var/lib/topolet-e2e-vm -pod-cidr 10.219.0.0/24 2>&1 | sed -u 's/^/machine: /'

.PHONY: test-on-host
test-on-host:
	$(E2E) -skip '^TestNUMAMachine$$' ./test/e2e 2>&1 | sed -u 's/^/host: /'

BENCHTIME ?= 1s

.PHONY: bench
bench: ## Benchmarks of the hot paths, with allocations (BENCHTIME=…).
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./topology/... ./allocator ./draplugin ./nriplugin

# The folder with the machines to read, a .tar.gz each.
MACHINES ?= ../shared/fixtures/topology

.PHONY: bench-discovery
bench-discovery: build ## Compare the time to read each of MACHINES with that of hwloc's lstopo (needs the Debian package hwloc-nox).
	@go run ./test/bench/discovery -topolet bin/topolet -machines $(MACHINES)

.PHONY: bench-closeness
bench-closeness: ## Compare how close together topolet and the kubelet put the CPUs of claims, on all the machines of the tests.
	@go -C test/bench/closeness test .
	@go -C test/bench/closeness run .

# MEMORY_FLAGS are those of test/bench/memory, such as -gomaxprocs=512.
.PHONY: bench-memory
bench-memory: build ## Measure topolet's memory on a machine of 512 CPUs with 500 containers (3 minutes; MEMORY_FLAGS=…).
	@go run ./test/bench/memory -topolet bin/topolet $(MEMORY_FLAGS)

# SCHEDULING_FLAGS are those of the program, such as -nodes and -pods.
.PHONY: bench-scheduling
bench-scheduling: ## Measure the real scheduler with 1,000 simulated nodes, against one device per CPU (needs root; SCHEDULING_FLAGS=…).
	@go build -o bin/bench-scheduling ./test/bench/scheduling
	@bin/bench-scheduling $(SCHEDULING_FLAGS)

# CHURN_FLAGS are those of the program, such as -for, -machine, -without and -json.
.PHONY: bench-churn
bench-churn: ## Have 200 containers and 20 claims come and go on a real node, and watch the claimed CPUs (10 minutes, needs root; CHURN_FLAGS=…).
	@go build -o bin/bench-churn ./test/bench/churn
	@bin/bench-churn $(CHURN_FLAGS)

##@ Lint

# Each tool has a module of its own under test/tools. `go tool` builds it once
# into Go's build cache.
GO_TOOL = go tool -modfile=$(CURDIR)/test/tools/$(1)/go.mod $(1)

# The modules with Go code in this repository.
MODULES := . test/testbed test/bench/closeness test/tools/helm test/tools/kind

# Without test/testbed/cmd/kube, which only calls Kubernetes: to look at its few
# lines the linter would read all of Kubernetes first, for many minutes.
.PHONY: lint
lint: ## Check the Go code of every module, and the shell scripts.
	@failed=0; \
	for m in $(MODULES); do \
		echo "lint $$m"; \
		(cd $$m && $(call GO_TOOL,golangci-lint) run --config $(CURDIR)/.golangci.yml \
			$$(go list -tags e2e -f '{{.Dir}}' ./... | grep -v /cmd/kube$$)) || failed=1; \
	done; \
	exit $$failed
	@if command -v shellcheck >/dev/null; then \
		shellcheck --external-sources deploy/*/*.sh; \
	else \
		echo "lint: shell scripts not checked, shellcheck is not installed (apt-get install shellcheck)"; \
	fi

.PHONY: fmt
fmt: ## Format the Go code of every module.
	@for m in $(MODULES); do \
		(cd $$m && $(call GO_TOOL,golangci-lint) fmt --config $(CURDIR)/.golangci.yml ./...); \
	done

##@ Deploy

IMAGE ?= docker.io/topolet/topolet:dev

.PHONY: image
image: ## Build the container image with docker or podman (IMAGE=…).
	deploy/image/build.sh topolet $(IMAGE)

.PHONY: test-deploy
test-deploy: ## Test the chart, the examples and the kind configuration; needs no cluster.
	# -count=1: Go's cache of test results does not see what helm and bash read.
	go -C test/tools/helm test -count=1 ./...
	go -C test/tools/kind test -count=1 ./...

.PHONY: kind-cluster
kind-cluster: ## Create a kind cluster with topolet on it and run an example (needs docker or podman).
	deploy/kind/up.sh

.PHONY: kind-delete
kind-delete: ## Delete that kind cluster.
	deploy/kind/down.sh

##@ Testbed

# A real one-node Kubernetes cluster on this machine; needs root, Go and a C
# compiler. CLUSTER_FLAGS are those of `testbed up`, such as --feature-gates.
# `go run` would build into a temporary folder and lose the program's exit code.
TESTBED = bin/testbed

.PHONY: $(TESTBED)
$(TESTBED):
	@go -C test/testbed build -o $(CURDIR)/$(TESTBED) ./cmd/testbed

.PHONY: packages
packages: $(TESTBED) ## Install the Debian packages that building the testbed needs.
	@$(TESTBED) packages

.PHONY: numa-packages
numa-packages: $(TESTBED) ## Install the Debian packages that the NUMA machine needs.
	@$(TESTBED) numa packages

.PHONY: testbed-build
testbed-build: packages ## Build Kubernetes, containerd and the rest into the user's cache (once per version, about 10 minutes).
	@$(TESTBED) build

.PHONY: cluster-up
cluster-up: packages ## Create the one-node cluster, or repair it (CLUSTER_FLAGS=…).
	@$(TESTBED) up $(CLUSTER_FLAGS)

.PHONY: cluster-topolet
cluster-topolet: cluster-up ## Install topolet on the cluster, as it is in this tree.
	@go run ./test/install

.PHONY: cluster-status
cluster-status: $(TESTBED) ## Tell what runs of the cluster.
	@$(TESTBED) status

# NUMA_FLAGS are those of `testbed numa up`, such as --layout.
.PHONY: numa-up
numa-up: cluster-up numa-packages ## Add an emulated machine with many NUMA nodes to the cluster as a node (NUMA_FLAGS=…).
	@$(TESTBED) numa up $(NUMA_FLAGS)

.PHONY: numa-down
numa-down: $(TESTBED) ## Remove that machine and its node.
	@$(TESTBED) numa down

.PHONY: testbed-test
testbed-test: testbed-build numa-packages ## Test the testbed itself, on clusters of its own (needs root).
	go -C test/testbed test -tags e2e -timeout 20m ./...

.PHONY: cluster-down
cluster-down: $(TESTBED) ## Remove the cluster and everything it left on this machine.
	@$(TESTBED) down

##@ Demonstration

# DEMO_FLAGS are those of bin/demo, such as --keep. Who cannot run it learns so
# before it is built.
.PHONY: demo
demo: ## Watch a claim for a CPU become a pinned container on a real node here (DEMO_FLAGS=--keep leaves it up).
	@[ "$$(id -u)" = 0 ] || { echo 'demo: not root, and only root can start a node: sudo env "PATH=$$PATH" make demo' >&2; exit 1; }
	@go build -o bin/demo ./test/demo
	@bin/demo $(DEMO_FLAGS)

##@ General

.PHONY: help
help: ## Show this help.
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*##/ {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
