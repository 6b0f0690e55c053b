#!/usr/bin/env bash
# Redis on loopback for tests that need no cluster, run by chroot from the root file system, in each of its three forms:
# one server alone, a primary with a replica and three Sentinels, and a cluster of three nodes. Keeps nothing on disk.
#   redis-local.sh start|stop|env
# start also writes …/redis-local/env, to be sourced: addresses and the password for the tests.
# MOS_REDIS_NAME and MOS_REDIS_PORT start another set beside it; it takes the 20 ports from there.
source "$(dirname "$0")/lib.sh"

name=${MOS_REDIS_NAME:-redis-local}
port=${MOS_REDIS_PORT:-6400}
dir=$cache/$name
master=maintenance-os   # what the Sentinels call the primary
alone=$port primary=$((port + 1)) replica=$((port + 2))
sentinels=("$((port + 3))" "$((port + 4))" "$((port + 5))")
nodes=("$((port + 6))" "$((port + 7))" "$((port + 8))")
servers=("$alone" "$primary" "$replica" "${sentinels[@]}" "${nodes[@]}")

# Redis puts its address into the name that the process shows; a cluster node and a Sentinel append what they are.
running() {
	local server
	for server; do is_running "$dir/$server.pid" "127.0.0.1:$server" || return 1; done
}
secret() { [ -s "$dir/password" ] || (umask 077 && password > "$dir/password"); cat "$dir/password"; }
addresses() { printf '127.0.0.1:%s,' "$@" | sed 's/,$//'; }

# inside COMMAND…: in the servers' mount namespace, from the root file system.
inside() { nsenter --mount --target "$(cat "$dir/$alone.pid")" chroot --userspec=redis:redis "$rootfs" "$@"; }
# cli PORT COMMAND…
cli() { inside redis-cli --no-auth-warning -a "$(secret)" -h 127.0.0.1 -p "$@"; }
sees_its_replica() { cli "$primary" INFO replication | grep state=online > /dev/null; }
is_watched() { [ "$(cli "$1" SENTINEL MASTER "$master" | tr -d '\r' | grep -A1 -x -e num-slaves -e num-other-sentinels | grep -cx '[12]')" = 2 ]; }
has_all_slots() { cli "$1" CLUSTER INFO | grep cluster_state:ok > /dev/null; }

# settings PORT [LINE…]: writes the server's file.
settings() {
	local server=$1
	shift
	{
		printf '%s\n' "bind 127.0.0.1" "port $server" "daemonize yes" "dir /mnt" "pidfile /mnt/$server.pid" "logfile /mnt/$server.log" \
			"requirepass $(secret)" "$@"
	} > "$dir/$server.conf"
}

write_settings() {
	local server data=('save ""' "appendonly no" "masterauth $(secret)" "databases 16")
	settings "$alone" "${data[@]}"
	settings "$primary" "${data[@]}" "repl-diskless-sync-delay 0"
	settings "$replica" "${data[@]}" "replicaof 127.0.0.1 $primary"
	for server in "${sentinels[@]}"; do
		settings "$server" "sentinel monitor $master 127.0.0.1 $primary 2" "sentinel auth-pass $master $(secret)" \
			"sentinel sentinel-pass $(secret)" "sentinel down-after-milliseconds $master 1000" \
			"sentinel failover-timeout $master 5000"
	done
	for server in "${nodes[@]}"; do
		# Full coverage off: while a node is away, the slots of the others are still served.
		settings "$server" "${data[@]}" "cluster-enabled yes" "cluster-config-file /mnt/$server.nodes" \
			"cluster-port $((server + 10))" "cluster-node-timeout 2000" "cluster-require-full-coverage no"
	done
}

start() {
	[ -f "$dir/env" ] && running "${servers[@]}" && return
	need_root
	"$here/rootfs.sh"
	stop
	mkdir -p "$dir"
	write_settings
	chown -R "$(chroot "$rootfs" id -u redis):$(chroot "$rootfs" id -g redis)" "$dir"
	chmod 755 "$dir"
	# The mount lives in a namespace of the servers' own, and goes with them.
	# shellcheck disable=SC2016
	unshare --mount --propagation private bash -euc '
		mount --bind "$1" "$2/mnt"; mount --rbind /dev "$2/dev"; mount -t proc proc "$2/proc"
		run() { chroot --userspec=redis:redis "$rootfs" redis-server "/mnt/$1.conf" "${@:2}"; }
		rootfs=$2
		for server in $3; do run "$server"; done
		for server in $4; do run "$server" --sentinel; done' \
		bash "$dir" "$rootfs" "$alone $primary $replica ${nodes[*]}" "${sentinels[*]}" \
		> "$logs/$name.log" 2>&1 < /dev/null 9>&- || { tail -n 20 "$logs/$name.log" "$dir"/*.log >&2; die "Redis did not start"; }
	until_true 10 "Redis runs" running "${servers[@]}"
	until_true 10 "the cluster is made" cli "${nodes[0]}" --cluster create "${nodes[@]/#/127.0.0.1:}" --cluster-yes
	local server
	for server in "${nodes[@]}"; do until_true 20 "the cluster has all slots" has_all_slots "$server"; done
	until_true 20 "the replica follows" sees_its_replica
	for server in "${sentinels[@]}"; do until_true 30 "the Sentinels know of each other" is_watched "$server"; done
	(umask 077 && cat > "$dir/env") <<-ENV
		export MOS_TEST_REDIS_HOST='127.0.0.1'
		export MOS_TEST_REDIS_PORT='$alone'
		export MOS_TEST_REDIS_PASSWORD='$(secret)'
		export MOS_TEST_SENTINELS='$(addresses "${sentinels[@]}")'
		export MOS_TEST_SENTINEL_MASTER='$master'
		export MOS_TEST_REDIS_CLUSTER='$(addresses "${nodes[@]}")'
		export MOS_TEST_ROOTFS='$rootfs'
	ENV
}

stop() {
	local server
	# The Sentinels first, so that they do not take the end of the primary for a failure.
	for server in "${sentinels[@]}" "$replica" "$primary" "$alone" "${nodes[@]}"; do
		stop_by_pidfile "$dir/$server.pid" "127.0.0.1:$server"
	done
	rm -rf "$dir"/*.{conf,log,nodes,pid,rdb} "$dir/env"
}

lock "$name"
case ${1:-} in
	start) start; say "Redis on 127.0.0.1:$port and the ports after it; for the tests: source $dir/env" ;;
	stop) stop ;;
	env) running "${servers[@]}" || die "not running: $0 start"; cat "$dir/env" ;;
	*) die "usage: $0 start|stop|env" ;;
esac
