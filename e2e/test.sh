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
	chart
	diff -r crds "$chart/crds" || die "the chart's crds differ from crds/: run make generate"
}

# chart: values that are taken, and values that are refused.
chart() {
	local chart=charts/maintenance-os values
	for values in app.replicas=1 networkPolicies.enabled=true,networkPolicies.egress.enabled=true \
		'app.redis.mode=sentinel,app.redis.nodes={a:26379,b:26379},app.redis.master=mymaster,app.redis.sentinelPasswordSecret.name=s' app.redis.tls.enabled=true,app.redis.tls.caSecret.name=ca 'app.redis.mode=cluster,app.redis.nodes={a:6379}' \
		app.storage.mode=local edge.mode=ingress portal.enabled=true edge.mode=ingress,portal.enabled=true,portal.trustedProxies='{10.0.0.0/8}' edge.mode=gateway,edge.gateway.className=traefik edge.mode=gateway,edge.gateway.create=false,edge.tls.enabled=false app.storage.mode=local,app.storage.local.claim=files app.mail.directory=true \
		billing.enabled=true billing.enabled=true,billing.host=api.example.com,edge.mode=ingress,networkPolicies.enabled=true,networkPolicies.egress.enabled=true billing.enabled=true,billing.host=api.example.com,edge.mode=gateway,edge.gateway.create=false; do
		helm template maintenance-os "$chart" -n maintenance-os --set "$values" > /dev/null || die "the chart does not take $values"
	done
	helm template maintenance-os "$chart" -n maintenance-os -f e2e/demo/values.yaml --set networkPolicies.enabled=true > /dev/null
	for values in nope=1 edge.mode=ingress,portal.enabled=true edge.mode=gateway edge.mode=nginx 'domains.dnsServers={ns.example}' app.redis.host= app.redis.mode=cluster 'app.redis.mode=sentinel,app.redis.nodes={a:26379}' 'app.redis.nodes={a}' \
		app.storage.mode=s3,app.storage.s3.bucket=b app.storage.mode=s3,app.storage.s3.secretName=s app.mail.directory=true,app.mail.urlSecret.name=mail billing.replicas=0 billing.host=api billing.webhookSecret.name=; do
		! helm template maintenance-os "$chart" --set "$values" > /dev/null 2>&1 || die "the chart takes $values"
	done
}

code() {
	install_nextest
	"$here/packages.sh"
	"$here/build.sh"
	"$here/postgres-local.sh" start
	"$here/apiserver-local.sh" start
	"$here/s3-local.sh" start
	"$here/redis-local.sh" start
	# A pair of their own for the tests that run a whole operator, which sees every Tenant of its cluster.
	MOS_POSTGRES_NAME=postgres-operator MOS_POSTGRES_PORT=5427 "$here/postgres-local.sh" start
	MOS_APISERVER_NAME=apiserver-operator MOS_APISERVER_PORT=16543 "$here/apiserver-local.sh" start
	eval "$(sed 's/MOS_TEST_/MOS_TEST_OPERATOR_/' "$cache/postgres-operator/env" "$cache/apiserver-operator/env")"
	source "$cache/postgres-local/env"
	source "$cache/apiserver-local/env"
	source "$cache/s3-local/env"
	source "$cache/redis-local/env"
	PATH=$cache/tools/bin:$PATH cargo nextest run --locked --no-fail-fast --workspace -E 'package(maintenance-os)' "$@"
}

cluster() {
	install_nextest
	"$here/packages.sh" browser
	e2e/demo/demo.sh
	KUBECONFIG=$cluster/admin.kubeconfig PATH=$cache/tools/bin:$PATH cargo nextest run --locked --no-fail-fast --workspace -E 'package(maintenance-os-e2e)' "$@"
}

case ${1:-} in
	lint | code | cluster) "$@" ;;
	*) die "usage: $0 lint|code|cluster [arguments of cargo nextest run]" ;;
esac
