#!/usr/bin/env bash
# Stops and removes what demo.sh and the tests started. Binaries, image layers and build caches stay.
source "$(dirname "$0")/../cluster/lib.sh"
need_root
"$here/postgres-local.sh" stop
rm -rf "$cache/postgres-local"
"$here/down.sh"
say "left: $cache ($(du -sh "$cache" 2> /dev/null | cut -f1) of caches; remove the folder to have none)"
