# Verbs loop over the modules; proof/ has a workspace of its own, so each verb runs inside the module.
MODULES  := . cmd/flatrate contrib/grpc proof
GOLANGCI := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
AREA     ?= connect
FUZZTIME ?= 20s
SOAK     ?= 10m

each = @set -e; for m in $(MODULES); do echo "-- $$m: $(1)"; (cd $$m && $(1)); done

NEWER    ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/flatrate

.PHONY: help servers test newer race lint build bench fuzz fault interleavings oracle queue-oracle soak tidy release-check

help: ## Say what each verb does
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

servers: ## Find valkey-server and redis-server, or install them (as root, or with Homebrew)
	@sh tools/install-servers.sh

test: servers ## Run all tests against real servers
	$(call each,go test ./...)

newer: ## Run the tests of leases and locks on Valkey 8.1, whose packages are unpacked below NEWER (Debian)
	sh tools/newer-valkey.sh $(NEWER)/trixie trixie
	PATH="$(NEWER)/trixie/bin:$$PATH" go test -count=1 ./internal/lease ./internal/server ./lock

race: servers ## Run all tests under the race detector
	$(call each,go test -race ./...)

lint: ## Check formatting and run the linters
	$(call each,$(GOLANGCI) run ./...)
	@sh tools/check-tree.sh

build: ## Build each module on its own, without the workspace
	$(call each,GOWORK=off go build ./...)

bench: servers ## Measure one area beside its peers: make bench AREA=connect
	cd proof && go run ./bench $(AREA)

fuzz: ## Run every fuzz target for FUZZTIME (20s)
	@sh tools/fuzz.sh $(FUZZTIME) $(MODULES)

fault: servers ## Kill, stop and cut off real processes, and count what was lost
	cd proof && FLATRATE_FAULT=1 go test -count=1 -timeout 60m ./fault/...

soak: servers ## Keep flatrate serve under load for SOAK (10m), and look at its memory
	cd proof && FLATRATE_SOAK=$(SOAK) go test -count=1 -timeout 60m -v -run TestServeSoak ./interop

interleavings: servers ## A million interleavings of all that a cache does, on one server and on a cluster
	FLATRATE_CACHE_RUNS=1000000 go test -count=1 -v -timeout 30m -run TestAdversary ./cache

oracle: servers ## Hold the rate limits against an exact model, a million operations for each plan
	FLATRATE_ORACLE=1000000 go test -count=1 -timeout 60m -v -run '^TestOracle$$' ./ratelimit

queue-oracle: servers ## Hold the queue against its model, a million steps of a standard and a FIFO queue
	FLATRATE_QUEUE_STEPS=1000000 go test -count=1 -v -timeout 60m -run '^TestOracle$$' ./queue

tidy: ## Tidy every module
	$(call each,go mod tidy)
