# Everything a fresh machine needs is installed or built by the target that
# needs it. Tools go to .cache/, which can be deleted at any time.

SHELL := /bin/bash
CACHE := .cache
BIN   := $(CACHE)/bin
NODE  := internal/e2e/node

.PHONY: help build test check race lint fuzz soak bench mutants clean

help: ## Say what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

build: ## Build bin/jwksd
	go build -trimpath -o bin/jwksd ./cmd/jwksd

test: lint check race ## Run all tests, after installing what they need

check:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt wants:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...

lint: $(BIN)/staticcheck
	$(BIN)/staticcheck ./...

race: $(CACHE)/node
	umask 022; go test -race -timeout 18m ./...
	cd internal/chaos && go vet ./... && go test -race -timeout 10m -count=1 ./...

FUZZTIME ?= 1m
fuzz: ## Run every fuzz target for FUZZTIME each
	@set -e; for pkg in $$(go list ./...); do \
	  dir=$$(go list -f '{{.Dir}}' $$pkg); \
	  for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$dir/*_test.go 2>/dev/null | sed 's/func //'); do \
	    echo "== $$pkg $$target"; go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; \
	done

SOAK_SEEDS ?= 5000
soak: ## Simulate many more seeds than the tests do, without the race detector
	go test -timeout 0 -run 'TestSimulation' ./rotation -args -seeds $(SOAK_SEEDS)

bench: $(BIN)/benchstat ## Measure; the table compares within one run
	go test -run '^$$' -bench . -benchmem -count 6 ./signer ./jwks ./api ./rotation/rotator | tee $(CACHE)/bench.txt
	$(BIN)/benchstat $(CACHE)/bench.txt

clean: ## Delete what was built
	rm -rf bin $(CACHE) $(NODE)/node_modules

# Tools and the long story of internal/chaos are in nested modules of their own,
# so that the product's go.mod stays small.
$(BIN)/staticcheck: tools/lint/go.mod
	@mkdir -p $(BIN)
	cd tools/lint && go build -o ../../$@ honnef.co/go/tools/cmd/staticcheck
$(BIN)/benchstat: tools/lint/go.mod
	@mkdir -p $(BIN)
	cd tools/lint && go build -o ../../$@ golang.org/x/perf/cmd/benchstat

# Node and the JavaScript verifiers.
$(CACHE)/node: $(NODE)/package-lock.json
	@mkdir -p $(CACHE)
	@command -v npm >/dev/null || { echo "installing node"; apt-get update -qq && apt-get install -y -qq nodejs npm; }
	cd $(NODE) && npm ci --no-audit --no-fund
	@touch $@
