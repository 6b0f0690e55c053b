# Every entry point of the project. Build caches and the cluster's state lie in ~/.cache/maintenance-os (MOS_CACHE), not here.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

MOS_CACHE ?= $(HOME)/.cache/maintenance-os
export MOS_CACHE
export CARGO_TARGET_DIR ?= $(MOS_CACHE)/target

.PHONY: help demo demo-down cluster test test-code test-cluster soak lint generate sqlx bench bench-requests bench-queue bench-backup

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## A real cluster with PostgreSQL, the operator, the app and five tenants; then what to type next
	@e2e/demo/demo.sh

demo-down: ## Stops and removes all of it; build caches stay
	@e2e/demo/down.sh

cluster: ## Only the cluster, without the project
	@e2e/cluster/packages.sh && e2e/cluster/build.sh && e2e/cluster/rootfs.sh && e2e/cluster/up.sh

test: lint test-code test-cluster ## Every test: format, lints, unit, integration, cluster

test-code: ## Unit tests, and integration tests against PostgreSQL and PgBouncer; no cluster
	@e2e/test.sh code

test-cluster: ## Brings the demo up and tests the promises of the README in it
	@e2e/test.sh cluster

soak: ## A million requests on 200 tenants: no answer ever carries another tenant's marker
	@MOS_LEAK_REQUESTS=1000000 e2e/test.sh code --test leak

lint: ## Format, clippy, scripts, chart
	@e2e/test.sh lint

bench: ## The figures of docs/benchmarks.md, on the demo's cluster with a release build (about 15 min)
	@e2e/bench/bench.sh

bench-requests: ## The request side's figures alone: host look-up, and many tenants against one (about 5 min, no cluster)
	@e2e/bench/bench.sh requests

bench-queue: ## Queues and workers alone: the rate of jobs, fairness, and what a worker costs at rest (about 4 min, no cluster)
	@e2e/bench/bench.sh queue

bench-backup: ## Backups and restores alone, beside pg_dump and pg_restore (about 5 min, no cluster)
	@e2e/bench/bench.sh backup

generate: ## Writes what is generated: the custom resource definitions, here and in the chart
	cargo run --quiet --locked --bin maintenance-os -- crds crds
	mkdir -p charts/maintenance-os/crds && rm -f charts/maintenance-os/crds/*.yaml
	cp crds/*.yaml charts/maintenance-os/crds/

sqlx: ## Writes what the compiler knows of the app's queries, .sqlx/ (needs root: it asks a PostgreSQL of its own)
	@e2e/sqlx.sh prepare
