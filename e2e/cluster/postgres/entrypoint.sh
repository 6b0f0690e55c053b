#!/bin/bash
# Makes the data directory on the first start, then starts PostgreSQL with the files that the pod mounts.
set -euo pipefail
data=/var/lib/postgresql/demo/data
if [ ! -d "$data" ]; then
	rm -rf "$data.new"
	initdb -D "$data.new" --username=postgres --auth=peer --encoding=UTF8 --locale=C.UTF-8 --no-instructions
	mv "$data.new" "$data"
fi
exec postgres -D "$data" -c config_file=/etc/postgresql-demo/postgresql.conf
