# Lapwing. `make help` lists the targets.

GO       ?= go
BIN      := bin/lapwing
EMBEDDED := internal/sandbox/program
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION)
MODELS   ?=
# What must be true of environments however they start: run once more with each
# of them restored from a snapshot.
CLONES   := ^(TestRuntimes|TestWhatAFunctionMeets|TestExtension.*|TestAnInvocationIsTraced|TestLimitsAndMessages|TestStreamingFunctionURL|TestEventLoopTurnsBetweenInvocations)$$
# Sandboxes, networks and clients are real, and the machine is shared: a test
# that fails is run once more by itself, and the summary names it either way. So
# many failures as a bad moment of the machine brings are run again, not more: a
# change that breaks much is told at once.
RERUN    := --format pkgname --rerun-fails=1 --rerun-fails-max-failures=15

export CGO_ENABLED = 0

.PHONY: help build demo test clones blanks race bench load lint generate conformance fuzz clean
help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: ## build bin/lapwing with all that it embeds
	$(GO) build -buildvcs=false -ldflags "-s -w" -o bin/ ./cmd/lapwing-sandbox
	gzip -nc bin/lapwing-sandbox >bin/lapwing-sandbox.gz && mv bin/lapwing-sandbox.gz $(EMBEDDED)/
	$(GO) build -buildvcs=false -ldflags "$(LDFLAGS)" -o $(BIN) ./cmd/lapwing

demo: ## set up, start, deploy and invoke a real function (as root)
	./scripts/setup demo
	$(MAKE) build
	./scripts/demo

test: ## set up what the tests need and run them all (as root)
	./scripts/setup test
	$(MAKE) build
	$(GO) vet ./...
	# While one package's tests run, the next one's are linked.
	$(GO) tool gotestsum $(RERUN) --packages ./... -- -p 2 -exec 'flock -o $(CURDIR)/bin/test.lock' -vet off -timeout 60m

clones: build ## the conformance of runtimes, each environment restored from a snapshot (as root)
	LAPWING_TEST_SNAPSHOTS=first $(GO) tool gotestsum $(RERUN) --packages ./test/conformance -- -count=1 -timeout 60m -run '$(CLONES)'

blanks: build ## the conformance of Node.js, each first start from a snapshot of the runtime alone (as root)
	LAPWING_TEST_SNAPSHOTS=runtimes $(GO) tool gotestsum $(RERUN) --packages ./test/conformance -- -count=1 -timeout 60m -run '$(CLONES)'

race: build ## run the tests of the Go packages under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -timeout 20m $$($(GO) list ./internal/... | grep -v /sandbox/gvisor)

conformance: clones blanks ## the tests that need the newest clients from other registries
	./scripts/setup conformance
	LAPWING_CONFORMANCE=all $(GO) tool gotestsum $(RERUN) --packages ./test/conformance/... -- -count=1 -timeout 60m -run '_Conformance$$'

bench: ## measure speed beside floors and peers in the same run (as root)
	./scripts/setup bench
	$(MAKE) build
	$(GO) run ./test/bench -json bin/bench.json -svg bin/bench.svg
	$(GO) run ./test/bench/edge -json bin/bench-edge.json

load: build ## 20,000 invocations with random kills, 500 clones of each runtime, an edge location cut off for a minute (as root; some minutes)
	LAPWING_LOAD=full $(GO) test -count=1 -timeout 60m -v -run '^(TestLoadWithKills|TestClonesShareNoRandomNumbers|TestEdgeLocationServesOnWhileTheCoreCannotBeReached)$$' ./test/acceptance

lint: ## gofmt, go vet and staticcheck
	@test -z "$$(gofmt -l cmd internal test)" || { gofmt -l cmd internal test; echo 'run gofmt on the files above'; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

generate: ## regenerate internal/aws from API models: make generate MODELS=DIR
	@test -n "$(MODELS)" || { echo 'say where the AWS API models are: make generate MODELS=DIR'; exit 2; }
	$(GO) run ./cmd/awsgen -models $(MODELS)

fuzz: ## run every fuzz test for 20 s
	./scripts/fuzz 20s

clean: ## remove what was built
	rm -rf bin $(EMBEDDED)/*.gz
