#!/usr/bin/env bash
# Measures backups beside PostgreSQL's own programs, on a PostgreSQL and an S3 server of its own. Needs no cluster.
# Prints a Markdown table; docs/benchmarks.md has one with its machine.
source "$(dirname "$0")/../cluster/lib.sh"
cd "$checkout"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
export MOS_POSTGRES_NAME=postgres-bench MOS_POSTGRES_PORT=5437 MOS_S3_NAME=s3-bench MOS_S3_PORT=7437
small=${MOS_BENCH_TENANTS:-200} gigabytes=${MOS_BENCH_GIGABYTES:-1}
work=$cache/bench-backup

stop() { "$here/postgres-local.sh" stop || true; "$here/s3-local.sh" stop || true; rm -rf "$work"; }
stop; trap stop EXIT
mkdir -p "$work/programs"
cargo build --quiet --locked --release --bin maintenance-os
"$here/postgres-local.sh" start; "$here/s3-local.sh" start
source "$cache/postgres-bench/env"; source "$cache/s3-bench/env"

# The root file system's programs, with this machine's files.
libraries=$rootfs/usr/lib/x86_64-linux-gnu
for program in pg_dump pg_restore createdb dropdb psql; do
	printf '#!/bin/sh\nexec %s/ld-linux-x86-64.so.2 --library-path %s %s/usr/lib/postgresql/17/bin/%s "$@"\n' \
		"$libraries" "$libraries" "$rootfs" "$program" > "$work/programs/$program"
	chmod +x "$work/programs/$program"
done
export PATH=$work/programs:$PATH PGHOST=127.0.0.1 PGPORT=$MOS_POSTGRES_PORT PGUSER=postgres PGSSLMODE=verify-full PGSSLROOTCERT=$MOS_TEST_POSTGRES_CA
PGPASSWORD=$(cat "$cache/postgres-bench/postgres.password"); export PGPASSWORD
export AWS_ACCESS_KEY_ID=$MOS_TEST_S3_KEY AWS_SECRET_ACCESS_KEY=$MOS_TEST_S3_SECRET AWS_DEFAULT_REGION=$MOS_TEST_S3_REGION \
	AWS_BUCKET=$MOS_TEST_S3_BUCKET AWS_URL=$MOS_TEST_S3_URL MOS_S3_CUSTOM_ENDPOINT=true MOS_S3_ALLOW_HTTP=true \
	MOS_SERVER=bench MOS_SERVER_HOST=$PGHOST MOS_SERVER_PORT=$PGPORT MOS_SERVER_CA=$MOS_TEST_POSTGRES_CA MOS_POSTGRES_PROGRAMS=$work/programs \
	MOS_BACKUP_PASSWORD=bench RUST_LOG=warn
MOS_PROVISIONER_PASSWORD=$(cat "$cache/postgres-bench/provisioner.password"); export MOS_PROVISIONER_PASSWORD

run() { psql -X -q -v ON_ERROR_STOP=1 "$@" > /dev/null; }
uuid() { printf '00000000-0000-4000-8000-%012d' "$1"; }
mark() { echo "COMMENT ON DATABASE \"tenant_$1\" IS 'maintenance-os/1 tenant=$1 object=$1 epoch=1 schema=0001';"; }
run -d postgres -c "CREATE ROLE maintenance_os_backup LOGIN PASSWORD 'bench'; GRANT pg_read_all_data TO maintenance_os_backup"
run -d postgres -c 'CREATE DATABASE bench_template'
for file in src/app/migrations/*.sql; do run -d bench_template -f "$file"; done
run -d bench_template -c "INSERT INTO assets (name) SELECT 'pump ' || n FROM generate_series(1, 1000) n"
for number in $(seq "$small"); do
	id=$(uuid "$number")
	run -d postgres -c "CREATE DATABASE \"tenant_$id\" TEMPLATE bench_template" -c "$(mark "$id")"
done
big=$(uuid 999999999999)
run -d postgres -c "CREATE DATABASE \"tenant_$big\" TEMPLATE template0" -c "$(mark "$big")"
# Text that packs to about half, as real rows do.
run -d "tenant_$big" -c "CREATE TABLE rows (id bigint PRIMARY KEY, text text)" \
	-c "INSERT INTO rows SELECT n, repeat(md5(n::text) || md5((-n)::text), 14) FROM generate_series(1, $gigabytes * 1100000) n"
run -d "tenant_$big" -c 'VACUUM ANALYZE'

seconds() { local begun; begun=$(date +%s.%N); "$@" > "$work/log" 2>&1 || { tail "$work/log" >&2; die "failed: $*"; }; echo "$(date +%s.%N) $begun" | awk '{ printf "%.2f", $1 - $2 }'; }
row() { awk -v what="$1" -v ours="$2" -v raw="$3" -v reach="$4" 'BEGIN { printf "| %s | %s s | %s s | %.2f | %s |\n", what, ours, raw, raw / ours, reach }'; }
maintenance_os=$CARGO_TARGET_DIR/release/maintenance-os
# Its own memory, and not that of the programs that it runs.
peak() { "$@" > "$work/log" 2>&1 & local pid=$! most=0 now
	while kill -0 "$pid" 2> /dev/null; do
		now=$(awk '/VmHWM/ { print $2 }' "/proc/$pid/status" 2> /dev/null || true); [ "${now:-0}" -gt "$most" ] && most=$now
		sleep 0.05
	done
	wait "$pid" || { tail "$work/log" >&2; die "failed: $*"; }
	echo $((most / 1024))
}

{ printf '['; for number in $(seq "$small"); do [ "$number" = 1 ] || printf ','; printf '{"uuid":"%s","name":"bench","keep":[7,4,12]}' "$(uuid "$number")"; done; printf ']'; } > "$work/tenants.json"
raw_small() { seq "$small" | while read -r number; do uuid "$number"; echo; done | xargs -P2 -I{} pg_dump -Fc -f "$work/{}.dump" "tenant_{}"; }
raw_dump() { pg_dump -Fc -f "$work/big.dump" "tenant_$big"; }
raw_restore() { createdb raw_restored && pg_restore -j2 --no-owner -d raw_restored "$work/big.dump"; }

echo "| what | measured | raw | ratio | to reach |"
echo "|---|---|---|---|---|"
raw=$(seconds raw_small); rm -f "$work"/0*.dump
row "$small small tenants, two at a time; raw: \`xargs -P2 pg_dump -Fc\` into files" "$(seconds "$maintenance_os" backup run --tenants "$work/tenants.json")" "$raw" '≥ 0.9×'
raw=$(seconds raw_dump)
row "backup of one tenant of $gigabytes GB; raw: \`pg_dump -Fc\` into a file" "$(seconds "$maintenance_os" backup run --tenant "$big")" "$raw" '≥ 0.9×'
raw=$(seconds raw_restore); dropdb raw_restored
row "restore of it into a scratch database, rows counted, dropped; raw: \`pg_restore -j2\` of a file" "$(seconds "$maintenance_os" backup rehearse --tenant "$big")" "$raw" '≥ 0.9×'
echo "| memory of a backup of it, beside \`pg_dump\` | $(peak "$maintenance_os" backup run --tenant "$big") MB | | | < 100 MB |"
echo "| memory of a restore of it, beside \`pg_restore\` | $(peak "$maintenance_os" backup rehearse --tenant "$big") MB | | | < 100 MB |"
