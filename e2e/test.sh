#!/usr/bin/env bash
# What `make test` runs. Fails loudly where something is missing; skips nothing.
#   test.sh lint|code|cluster
source "$(dirname "$0")/cluster/lib.sh"
cd "$checkout"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}

nextest='~0.9'
install_nextest() {
	[ -x "$cache/tools/bin/cargo-nextest" ] && return
	say "installing cargo-nextest (once, a few minutes)"
	# Unoptimised: it waits for tests, and is built in half the time.
	(cd / && CARGO_TARGET_DIR=$cache/tools/target cargo install cargo-nextest --debug --version "$nextest" --locked --root "$cache/tools")
	rm -rf "$cache/tools/target"
}

lint() {
	local scripts chart=charts/maintenance-os
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	"$here/packages.sh"
	"$here/build.sh"
	e2e/sqlx.sh check
	mapfile -t scripts < <(find e2e .ci -type f \( -name '*.sh' -o -path .ci/run \))
	shellcheck --external-sources --source-path=SCRIPTDIR --severity=warning --exclude=SC2034 "${scripts[@]}"   # lib.sh's variables
	helm lint --quiet --strict "$chart"
	helm template maintenance-os "$chart" -n maintenance-os > /dev/null
	helm template maintenance-os "$chart" -n maintenance-os -f e2e/demo/values.yaml --set networkPolicies.enabled=true > /dev/null
	! helm template maintenance-os "$chart" --set nope=1 > /dev/null 2>&1 || die "the chart takes a value that does not exist"
	diff -r crds "$chart/crds" || die "the chart's crds differ from crds/: run make generate"
}

code() {
	install_nextest
	"$here/packages.sh"
	"$here/build.sh"
	"$here/postgres-local.sh" start
	"$here/apiserver-local.sh" start
	"$here/s3-local.sh" start
	# A pair of their own for the tests that run a whole operator, which sees every Tenant of its cluster.
	MOS_POSTGRES_NAME=postgres-operator MOS_POSTGRES_PORT=5427 "$here/postgres-local.sh" start
	MOS_APISERVER_NAME=apiserver-operator MOS_APISERVER_PORT=16543 "$here/apiserver-local.sh" start
	eval "$(sed 's/MOS_TEST_/MOS_TEST_OPERATOR_/' "$cache/postgres-operator/env" "$cache/apiserver-operator/env")"
	source "$cache/postgres-local/env"
	source "$cache/apiserver-local/env"
	source "$cache/s3-local/env"
	PATH=$cache/tools/bin:$PATH cargo nextest run --locked --no-fail-fast --package maintenance-os "$@"
}

cluster() {
	install_nextest
	e2e/demo/demo.sh
	KUBECONFIG=$cluster/admin.kubeconfig PATH=$cache/tools/bin:$PATH cargo nextest run --locked --no-fail-fast --package maintenance-os-e2e "$@"
}

case ${1:-} in
	lint | code | cluster) "$@" ;;
	*) die "usage: $0 lint|code|cluster [arguments of cargo nextest run]" ;;
esac
