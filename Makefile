# Verbs loop over the modules; proof/ has a workspace of its own, so each verb runs inside the module.
MODULES  := . cmd/flatrate contrib/gorilla contrib/grpc proof
GOLANGCI := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
AREA     ?= connect
FUZZTIME ?= 20s
SOAK     ?= 10m

each = @set -e; for m in $(MODULES); do echo "-- $$m: $(1)"; (cd $$m && $(1)); done

NEWER    ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/flatrate

.PHONY: help servers test newer newest race lint build bench fuzz fault interleavings raced million browser oracle queue-oracle cur meter doctor soak compatibility terraform-check tidy release-check

help: ## Say what each verb does
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

servers: ## Find valkey-server and redis-server, or install them (as root, or with Homebrew)
	@sh tools/install-servers.sh

test: servers ## Run all tests against real servers
	$(call each,go test ./...)

newer: ## Run the tests of leases and locks on Valkey 8.1, whose packages are unpacked below NEWER (Debian)
	sh tools/newer-valkey.sh $(NEWER)/trixie trixie
	PATH="$(NEWER)/trixie/bin:$$PATH" go test -count=1 ./internal/lease ./internal/server ./lock

newest: ## Run the tests of objects and of users' rights on Valkey 9, with its TTL for fields, from Debian's unstable packages
	sh tools/newer-valkey.sh $(NEWER)/sid sid
	PATH="$(NEWER)/sid/bin:$$PATH" go test -count=1 ./cache/object
	cd cmd/flatrate && PATH="$(NEWER)/sid/bin:$$PATH" go test -count=1 -run '^Test(AccessStrings|ForeignRefused)' ./internal/terraform

race: servers ## Run all tests under the race detector, but for those that repeat others or only measure (-short)
	$(call each,go test -race -short ./...)

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

raced: servers ## Race logouts, writes and renewals of sessions, 10,000 trials each, on one server and on a cluster
	FLATRATE_SESSION_RUNS=10000 go test -count=1 -timeout 30m -v -run '^TestRace$$' ./session

million: servers ## A million sessions, of which one user has 1,000: log out everywhere
	FLATRATE_SESSION_MILLION=1 go test -count=1 -timeout 30m -v -run '^TestMillion$$' ./session

browser: servers ## A real browser logs in, and is logged out from a second one (needs Chromium)
	cd proof && FLATRATE_REQUIRE_BROWSER=1 go test -count=1 -v -run '^TestBrowser' ./interop

cur: ## Read a generated Cost and Usage Report of 1 GB as CSV, gzip and Parquet, and print time and peak memory
	cd cmd/flatrate && FLATRATE_LARGE_CUR=1024 go test -count=1 -v -timeout 30m -run '^TestLargeReport$$' .

meter: servers ## Hold the meter against an independent count, 20,000 rounds of eight callers through the blocks
	FLATRATE_METER=20000 go test -count=1 -timeout 30m -v -run '^TestMixedLoad$$' ./meter

doctor: servers ## Hold sizes against used_memory on all servers that can be had, and look at a million keys beside --memkeys
	sh tools/newer-valkey.sh $(NEWER)/trixie trixie
	sh tools/newer-valkey.sh $(NEWER)/sid sid
	FLATRATE_DOCTOR_KEYS=100000 FLATRATE_DOCTOR_SERVERS=$(NEWER)/trixie/bin/valkey-server,$(NEWER)/sid/bin/valkey-server go test -count=1 -v -timeout 30m -run '^(TestMemory|TestRDBIsTheServer)$$' ./doctor
	cd cmd/flatrate && FLATRATE_DOCTOR_MILLION=1000000 go test -count=1 -v -timeout 30m -run '^TestDoctorMillion$$' .

oracle: servers ## Hold the rate limits against an exact model, a million operations for each plan
	FLATRATE_ORACLE=1000000 go test -count=1 -timeout 60m -v -run '^TestOracle$$' ./ratelimit

queue-oracle: servers ## Hold the queue against its model, a million steps of a standard and a FIFO queue
	FLATRATE_QUEUE_STEPS=1000000 go test -count=1 -v -timeout 60m -run '^TestOracle$$' ./queue

compatibility: servers ## Run the clients of other languages unchanged, and write the table of docs/compatibility.md
	cd proof && go test -count=1 -run '^TestCompatibility$$' ./interop -update

terraform-check: ## Hold what flatrate terraform writes against the AWS provider's schema, and OpenTofu if it is on the PATH (TOFU)
	sh tools/terraform-schema.sh $(NEWER)/terraform
	cd proof && FLATRATE_TERRAFORM_SCHEMA=$(NEWER)/terraform go test -count=1 -v -timeout 30m -run '^TestTerraform' ./interop

tidy: ## Tidy every module
	$(call each,go mod tidy)
