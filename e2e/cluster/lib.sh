# Shared by the scripts of this folder: where things lie, and a few small helpers. Sourced, not run.
# shellcheck shell=bash
# Everything they make lies below $MOS_CACHE; nothing is written into the checkout.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$here/../.." && pwd)
cache=${MOS_CACHE:-$HOME/.cache/maintenance-os}
bin=$cache/bin
images=$cache/images
cluster=$cache/cluster
rootfs=$cache/rootfs
logs=$cache/log
namespace=mos              # the network namespace of the cluster
inside_address=10.97.0.1   # the node, from the host
outside_address=10.97.0.254
export KUBECONFIG=${KUBECONFIG:-$cluster/admin.kubeconfig}
export PATH=$bin:$PATH:$HOME/.cargo/bin:/usr/local/go/bin:/usr/sbin:/sbin   # under sudo or cron these are missing

mkdir -p "$bin" "$images" "$logs"

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

need_root() {
	[ "$(id -u)" = 0 ] || die "this needs root (network namespaces, mounts). Without root, use any cluster: see README.md, \"Any cluster\"."
}

# until_true SECONDS WHAT COMMAND…: runs the command until it succeeds, and fails loudly when the time is up.
until_true() {
	local deadline=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" > /dev/null 2>&1; do
		[ "$SECONDS" -lt "$deadline" ] || { say "error: $what: not so in time. Last answer of: $*"; "$@" >&2 || true; return 1; }
		sleep 0.2
	done
}

# is_running PIDFILE WORD: the process of that file is alive and its command line holds the word.
is_running() {
	local pid
	[ -s "$1" ] && pid=$(cat "$1") && [ -r "/proc/$pid/cmdline" ] &&
		[[ "$(tr '\0' ' ' 2> /dev/null < "/proc/$pid/cmdline")" == *"$2"* ]]
}

# stop_by_pidfile PIDFILE WORD [SECONDS]: ends that process and no other; TERM first, KILL when it does not go.
stop_by_pidfile() {
	local file=$1 word=$2 deadline=$((SECONDS + ${3:-10}))
	if is_running "$file" "$word"; then
		kill "$(cat "$file")" 2> /dev/null || true
		while is_running "$file" "$word"; do
			[ "$SECONDS" -lt "$deadline" ] || kill -9 "$(cat "$file")" 2> /dev/null || true
			sleep 0.1
		done
	fi
	rm -f "$file"
}

# lock NAME: until this script ends, no other run of it (or of one with the same lock) goes on. Scripts that it calls share it.
# What stays running must close descriptor 9, or it would keep the lock.
lock() {
	case " ${MOS_LOCKS:-} " in *" $1 "*) return ;; esac
	exec 9> "$cache/.$1.lock"
	flock --nonblock 9 || say "waiting for another run to end ($1)"
	flock --timeout 600 9 || die "another run has held $cache/.$1.lock for ten minutes"
	export MOS_LOCKS="${MOS_LOCKS:-} $1"
}

# certificate DIR NAME SUBJECT SUBJECTALTNAME: signed by DIR/ca.crt.
certificate() {
	openssl req -newkey rsa:2048 -nodes -keyout "$1/$2.key" -out "$1/$2.csr" -subj "$3" 2> /dev/null
	printf 'subjectAltName=%s\n' "$4" > "$1/$2.ext"
	openssl x509 -req -in "$1/$2.csr" -CA "$1/ca.crt" -CAkey "$1/ca.key" -CAcreateserial -days 3650 \
		-extfile "$1/$2.ext" -out "$1/$2.crt" 2> /dev/null
	rm "$1/$2.csr" "$1/$2.ext"
}

# authority DIR NAME: a certificate authority of our own.
authority() {
	mkdir -p "$1"
	openssl req -x509 -newkey rsa:2048 -nodes -keyout "$1/ca.key" -out "$1/ca.crt" -days 3650 -subj "/CN=$2" 2> /dev/null
}

password() { openssl rand -hex 24; }
