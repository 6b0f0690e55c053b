#!/usr/bin/env bash
# PostgreSQL 17 on loopback for tests that need no cluster, run by chroot from the root file system. Its data is thrown away on stop.
#   postgres-local.sh start|stop|url|psql [arguments]
# start also writes …/postgres-local/env, to be sourced: addresses and passwords for the tests.
# MOS_POSTGRES_NAME and MOS_POSTGRES_PORT start another one beside it.
source "$(dirname "$0")/lib.sh"

name=${MOS_POSTGRES_NAME:-postgres-local}
port=${MOS_POSTGRES_PORT:-5417}
dir=$cache/$name
pidfile=$dir/data/postmaster.pid
programs=/usr/lib/postgresql/17/bin

running() { [ -f "$pidfile" ] && head -n 1 "$pidfile" > "$dir/pid" && is_running "$dir/pid" "postgres -D /mnt/data"; }
# inside COMMAND…: in the server's mount namespace, as its user, from the root file system.
inside() { nsenter --mount --target "$(cat "$dir/pid")" chroot --userspec=postgres:postgres "$rootfs" "$@"; }
sql() { inside "$programs/psql" -X -h /mnt/socket -p "$port" -U postgres "$@"; }
secret() { [ -s "$dir/$1.password" ] || (umask 077 && password > "$dir/$1.password"); cat "$dir/$1.password"; }

start() {
	running && return
	need_root
	"$here/rootfs.sh"
	rm -rf "$dir/data" "$dir/socket"
	mkdir -p "$dir"/{data,socket,tls}
	[ -f "$dir/tls/server.crt" ] || {
		authority "$dir/tls" "$name test CA"
		certificate "$dir/tls" server "/CN=localhost" DNS:localhost,IP:127.0.0.1
	}
	cat "$checkout/charts/maintenance-os/files/pg_hba.conf.example" > "$dir/pg_hba.conf"
	sed -i '1i host all postgres 127.0.0.1/32 scram-sha-256   # tests only: a superuser over TCP' "$dir/pg_hba.conf"
	cat > "$dir/postgresql.conf" <<-CONF
		listen_addresses = '127.0.0.1'
		port = $port
		unix_socket_directories = '/mnt/socket'
		hba_file = '/mnt/pg_hba.conf'
		ssl = on
		ssl_cert_file = '/mnt/tls/server.crt'
		ssl_key_file = '/mnt/tls/server.key'
		password_encryption = 'scram-sha-256'
		max_connections = 300
		max_wal_size = 4GB
		fsync = off
		full_page_writes = off
		jit = off
		log_line_prefix = '%m [%p] %q%u@%d '
	CONF
	local user
	user=$(chroot "$rootfs" id -u postgres):$(chroot "$rootfs" id -g postgres)
	chown -R "$user" "$dir"/{data,socket,tls,pg_hba.conf,postgresql.conf}
	chmod 700 "$dir/data"; chmod 600 "$dir/tls/server.key"
	# The mounts live in a namespace of the server's own, and go with it.
	# shellcheck disable=SC2016
	unshare --mount --propagation private bash -euc '
		mount --bind "$1" "$2/mnt"; mount --rbind /dev "$2/dev"; mount -t proc proc "$2/proc"
		as_postgres() { chroot --userspec=postgres:postgres "$2" "${@:3}"; }
		as_postgres "$1" "$2" "$3/initdb" -D /mnt/data --no-sync --no-instructions --encoding=UTF8 --locale=C.UTF-8
		cat "$1/postgresql.conf" >> "$1/data/postgresql.conf"
		as_postgres "$1" "$2" "$3/pg_ctl" -D /mnt/data -w -t 30 -l /mnt/data/log start' \
		bash "$dir" "$rootfs" "$programs" > "$logs/$name.log" 2>&1 < /dev/null 9>&- ||
		{ tail -n 20 "$logs/$name.log" "$dir/data/log" >&2; die "PostgreSQL did not start, see $logs/$name.log"; }
	running || die "PostgreSQL started, but $pidfile names no such process"
	sql -q -v ON_ERROR_STOP=1 -f - <<< "ALTER ROLE postgres PASSWORD '$(secret postgres)'" > /dev/null
	sql -q -v provisioner_password="$(secret provisioner)" -v central_password="$(secret central)" \
		-f - < "$checkout/e2e/demo/administrator.sql" > /dev/null
	(umask 077 && cat > "$dir/env") <<-ENV
		export MOS_TEST_POSTGRES_URL='$(url)'
		export MOS_TEST_PROVISIONER_URL='postgres://maintenance_os_provisioner:$(secret provisioner)@127.0.0.1:$port/postgres'
		export MOS_TEST_CENTRAL_URL='postgres://maintenance_os_central:$(secret central)@127.0.0.1:$port/maintenance_os_central'
		export MOS_TEST_POSTGRES_CA='$dir/tls/ca.crt'
		export MOS_TEST_ROOTFS='$rootfs'
	ENV
	chmod a+rx "$dir" "$dir/tls"; chmod a+r "$dir/tls/ca.crt"
}

url() { echo "postgres://postgres:$(secret postgres)@127.0.0.1:$port/postgres"; }

stop() {
	if running; then
		kill -INT "$(cat "$dir/pid")"   # PostgreSQL's "fast" shutdown
		until_true 20 "PostgreSQL ends" eval '! running'
	fi
	rm -rf "$dir/data" "$dir/socket" "$dir/pid"
}

lock "$name"
case ${1:-} in
	start) start && say "PostgreSQL on 127.0.0.1:$port; for the tests: source $dir/env" ;;
	stop) stop ;;
	url) url ;;
	psql) running || die "not running: $0 start"; shift; sql "$@" ;;
	*) die "usage: $0 start|stop|url|psql [arguments]" ;;
esac
