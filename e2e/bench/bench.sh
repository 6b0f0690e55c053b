#!/usr/bin/env bash
# bench.sh [singles|burst|cold|rest …]: brings the demo up with a release build and measures it, all or these sections. Prints a Markdown table; docs/benchmarks.md has one with its machine.
source "$(dirname "$0")/../cluster/lib.sh"
cd "$checkout"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
MOS_PROFILE=release e2e/demo/demo.sh > "$logs/bench-demo.log" 2>&1 || { tail -n 40 "$logs/bench-demo.log" >&2; die "the demo did not come up"; }
cargo build --quiet --locked --release --package maintenance-os-e2e --bin bench
KUBECONFIG=$cluster/admin.kubeconfig "$CARGO_TARGET_DIR/release/bench" "$@"
