#!/usr/bin/env bash
# Redis as tests need it and the demo does not: behind Sentinel, or as a cluster of three nodes; in the namespace redis-tests,
# with the password of the demo's Redis.
#   redis-pods.sh sentinel|cluster up|down
source "$(dirname "$0")/lib.sh"
usage="usage: $0 sentinel|cluster up|down"
kind=${1:-}
manifest=$here/redis/$kind.yaml
[ -f "$manifest" ] || die "$usage"

apply() { kubectl apply --server-side --force-conflicts --field-manager=tests -f - > /dev/null; }
inside() { kubectl -n redis-tests exec "redis-$kind-0" -c redis -- "$@"; }

# Three sentinels that know each other, and of the leader's two replicas that they have caught up.
sentinel_is_complete() {
	[ "$(inside redis-cli --raw -p 26379 sentinel ckquorum maintenance-os | grep -c '^OK 3 ')" = 1 ] &&
		[ "$(inside redis-cli --raw -p 26379 sentinel replicas maintenance-os | tr -d '\r' | grep -A1 -x master-link-status | grep -cx ok)" = 2 ]
}
cluster_is_complete() { inside redis-cli --raw cluster info | tr -d '\r' | grep -qx cluster_state:ok; }
make_cluster() {
	local addresses
	cluster_is_complete && return
	mapfile -t addresses < <(kubectl -n redis-tests get pods -l app=redis-cluster -o jsonpath='{range .items[*]}{.status.podIP}:6379{"\n"}{end}')
	inside redis-cli --cluster create "${addresses[@]}" --cluster-yes > /dev/null
}

up() {
	apply <<-YAML
	apiVersion: v1
	kind: Namespace
	metadata: { name: redis-tests, labels: { pod-security.kubernetes.io/enforce: restricted } }
	YAML
	kubectl -n redis-tests create secret generic redis --dry-run=client -o yaml \
		--from-file=password=<(kubectl -n databases get secret redis -o jsonpath='{.data.password}' | base64 -d) | apply
	apply < "$manifest"
	kubectl -n redis-tests rollout status "statefulset/redis-$kind" --timeout=60s > /dev/null
	[ "$kind" != cluster ] || make_cluster
	until_true 60 "redis-$kind is complete" "${kind}_is_complete"
}
down() { kubectl delete --ignore-not-found --wait=true -f "$manifest" > /dev/null; }

case ${2:-} in
	up | down) "$2" ;;
	*) die "$usage" ;;
esac
