#!/usr/bin/env bash
# Stops and removes what demo.sh and the tests started. Binaries, image layers and build caches stay.
source "$(dirname "$0")/../cluster/lib.sh"
need_root
"$here/postgres-local.sh" stop
"$here/apiserver-local.sh" stop
"$here/redis-local.sh" stop
"$here/s3-local.sh" stop
MOS_POSTGRES_NAME=postgres-operator MOS_POSTGRES_PORT=5427 "$here/postgres-local.sh" stop
MOS_APISERVER_NAME=apiserver-operator MOS_APISERVER_PORT=16543 "$here/apiserver-local.sh" stop
rm -rf "$cache"/{postgres,apiserver}-{local,operator}
"$checkout/e2e/demo/dns.sh" stop
"$here/down.sh"
say "left: $cache ($(du -sh "$cache" 2> /dev/null | cut -f1) of caches; remove the folder to have none)"
