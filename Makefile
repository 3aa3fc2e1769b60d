# The targets that people and CI use. Everything they need beside Go and make is
# built from Go modules, or installed from Debian by `make setup`.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

GO ?= go
TOOL = $(GO) tool -modfile=tools/go.mod
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# Enough for a real API server in each of several packages at once.
TEST_TIMEOUT ?= 35m

.PHONY: build test test-openbao test-kills lint race generate cover setup servers demo-recording vulncheck fuzz clean \
	bench bench-authorize bench-store bench-scan bench-watch bench-archive bench-activity bench-live

build: ## The static binary, in bin/remit
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/remit ./cmd/remit

test: setup lint servers ## What CI runs: linters, then all tests with the race detector, real servers included,
## and without it what is too slow under it
	CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/remit
	$(GO) test -race -short -timeout $(TEST_TIMEOUT) ./...
	$(GO) test -timeout $(TEST_TIMEOUT) ./store/sqlstore # the long part: random kills, every walk of every list

lint: ## Formatting, vet, staticcheck, reproducible generated files
	@unformatted=$$($(TOOL) gofumpt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofumpt would change:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(GO) mod verify >/dev/null

vulncheck: ## Known vulnerabilities; needs vuln.go.dev
	$(TOOL) govulncheck ./...

generate: ## Everything that is generated; the tests fail when it is not up to date
	$(GO) generate ./...

cover: setup servers ## Test coverage by package, counting what any test of the product reaches
	rm -rf coverage && mkdir coverage
	$(GO) test -timeout $(TEST_TIMEOUT) -cover -coverpkg=./... ./... -args -test.gocoverdir=$(CURDIR)/coverage
	$(GO) tool covdata percent -i=coverage

setup: ## What the tests need from Debian
	@deploy/setup

servers: ## The real API server, etcd, S3 and OpenBao server, built once and cached (about 20 minutes the first time)
	$(GO) run ./e2e/cmd/servers

test-openbao: ## Rotation on a real OpenBao, whose build takes too long for CI
	$(GO) run ./e2e/cmd/servers -openbao
	$(GO) test -tags openbao -timeout $(TEST_TIMEOUT) ./connector/openbao

test-kills: setup servers ## Containment and rotation, killed 300 times each at random moments (about 20 minutes)
	REMIT_KILLS=300 $(GO) test ./cmd/remit -run 'AnsweredKilled|ServedRotationKilled' -timeout 90m -v

demo-recording: servers ## Makes the recording behind `remit demo` anew from a real API server
	$(GO) run ./e2e/cmd/record -o cmd/remit/demo/recording.json.gz

fuzz: ## Every fuzz target for a short while
	@for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "$$package $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $${FUZZTIME:-20s} -fuzzminimizetime 10x $$package; \
		done; \
	done

bench: bench-store bench-scan bench-watch bench-archive bench-activity bench-live bench-authorize

bench-store: ## A million identities through the reconcile path, both engines
	$(GO) run ./bench/store -engine sqlite
	$(GO) run ./bench/store -engine postgres

bench-scan: servers ## A large cluster on a real API server: time, memory, and where they go
	$(GO) run ./bench/scan

bench-watch: servers ## How fresh the store is under 1,000 changes a second
	$(GO) run ./bench/watch

bench-archive: ## Writing, compacting and searching an archive of events
	$(GO) run ./bench/archive

bench-activity: servers ## Audit events through the whole pipeline on one core, by stage, rules and identities; and a real log
	$(GO) run ./bench/activity
	dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	$(GO) run ./bench/auditlog -o "$$dir/audit.log" && $(GO) run ./bench/activity -log "$$dir/audit.log"

bench-live: ## From a webhook's request to a visible finding, at rest and under load
	$(GO) run ./bench/live

bench-authorize: servers ## How long an API server waits for the answer of the authorization webhook, at 5,000 a second
	$(GO) run ./bench/authorize

clean:
	rm -rf bin dist coverage
