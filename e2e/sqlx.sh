#!/usr/bin/env bash
# The app's queries are checked against its migrations when it is compiled. What the compiler needs to know of them without
# a database lies in .sqlx/; this script writes it anew, asking a real PostgreSQL.
#   sqlx.sh prepare    writes .sqlx/ (run it after changing a query or a migration)
#   sqlx.sh check      fails when .sqlx/ is not what prepare would write
source "$(dirname "$0")/cluster/lib.sh"
cd "$checkout"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
database=maintenance_os_queries_$$

psql() { "$here/postgres-local.sh" psql -q -v ON_ERROR_STOP=1 "$@"; }
drop_database() { psql -c "DROP DATABASE IF EXISTS \"$database\" WITH (FORCE)" 2> /dev/null; }

# describe DIRECTORY: one file per query of the app.
describe() {
	local url
	"$here/postgres-local.sh" start
	trap drop_database EXIT
	psql -c "CREATE DATABASE \"$database\" TEMPLATE template0 ENCODING 'UTF8'"
	cat src/app/migrations/*.sql | psql -d "$database" -f - > /dev/null
	url=$("$here/postgres-local.sh" url)
	touch src/lib.rs   # the macros ask only when the crate is compiled
	DATABASE_URL=${url%/postgres}/$database SQLX_OFFLINE_DIR=$1 cargo check --quiet --locked --workspace --lib
}

case ${1:-} in
	prepare)
		rm -rf .sqlx
		mkdir .sqlx
		describe "$checkout/.sqlx"
		;;
	check)
		found=$(mktemp -d)
		describe "$found"
		diff -r "$found" .sqlx || die ".sqlx/ is not what the queries and migrations say: run make sqlx"
		rm -r "$found"
		;;
	*) die "usage: $0 prepare|check" ;;
esac
