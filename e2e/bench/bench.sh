#!/usr/bin/env bash
# Brings the demo up with a release build and measures it. Prints a Markdown table; docs/benchmarks.md has one with its machine.
#   bench.sh                              everything
#   bench.sh requests                     the request side alone, which needs no cluster
#   bench.sh queue                        queues and workers alone, which need Redis and no cluster
#   bench.sh backup                       backups and restores alone, which need PostgreSQL and S3 and no cluster
#   bench.sh singles|burst|cold|rest|life|rollout …    these sections of the operator's
source "$(dirname "$0")/../cluster/lib.sh"
cd "$checkout"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
requests() {
	"$here/postgres-local.sh" start
	source "$cache/postgres-local/env"
	cargo build --quiet --locked --release --workspace --bin bench-requests
	"$CARGO_TARGET_DIR/release/bench-requests"
}

queue() {
	"$here/redis-local.sh" start
	source "$cache/redis-local/env"
	cargo build --quiet --locked --release --workspace --bin maintenance-os --bin bench-queue
	"$CARGO_TARGET_DIR/release/bench-queue"
}

backup() { e2e/bench/backup.sh; }

case ${1:-} in
	requests | queue | backup) "$1"; exit ;;
esac
MOS_PROFILE=release e2e/demo/demo.sh > "$logs/bench-demo.log" 2>&1 || { tail -n 40 "$logs/bench-demo.log" >&2; die "the demo did not come up"; }
cargo build --quiet --locked --release --workspace --bin bench
KUBECONFIG=$cluster/admin.kubeconfig "$CARGO_TARGET_DIR/release/bench" "$@"
[ $# -gt 0 ] || { requests && queue && backup; }
