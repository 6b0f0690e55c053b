#!/usr/bin/env bash
# Makes one small Debian 13 root file system with PostgreSQL 17 and PgBouncer: the base of our images, and what tests run by chroot.
#   rootfs.sh          make it, if it is not there
#   rootfs.sh --path   print where it is
source "$(dirname "$0")/lib.sh"

version=1   # raise it to have every machine make a new one
if [ "${1:-}" = --path ]; then echo "$rootfs"; exit; fi
if [ "$(cat "$rootfs/.maintenance-os" 2> /dev/null)" = "$version" ]; then exit 0; fi
need_root
lock rootfs
if [ "$(cat "$rootfs/.maintenance-os" 2> /dev/null)" = "$version" ]; then exit 0; fi

new=$cache/rootfs.new
rm -rf "$new"
# Debian 12's debootstrap knows trixie under this name or not at all: "sid" is the same recipe.
recipe=trixie
[ -e /usr/share/debootstrap/scripts/trixie ] || recipe=sid
debootstrap --variant=minbase \
	--include=ca-certificates,pgbouncer,postgresql-17,postgresql-client-17,redis-server \
	trixie "$new" "${MOS_DEBIAN_MIRROR:-}" "/usr/share/debootstrap/scripts/$recipe"

# The packages make a cluster and start nothing; the images and tests make their own.
rm -rf "$new"/var/lib/postgresql/17 "$new"/etc/postgresql/17 "$new"/var/log/postgresql/*
rm -rf "$new"/var/cache/apt/* "$new"/var/lib/apt/lists/* "$new"/var/cache/debconf/*-old "$new"/var/lib/dpkg/*-old
rm -rf "$new"/usr/share/{doc,man,info,lintian,bash-completion} "$new"/var/log/*.log
find "$new/usr/share/locale" -mindepth 1 -maxdepth 1 -exec rm -rf {} +
rm -rf "$new"/usr/lib/llvm-* "$new"/usr/lib/x86_64-linux-gnu/libLLVM*   # PostgreSQL's JIT: 130 MB, and off
rm -rf "$new"/usr/lib/postgresql/17/lib/bitcode "$new"/usr/lib/postgresql/17/lib/llvmjit*
mkdir -p "$new/var/lib/apt/lists/partial" "$new/var/cache/apt/archives/partial"
grep -q '^maintenance-os:' "$new/etc/passwd" || {
	echo 'maintenance-os:x:65532:65532::/nonexistent:/usr/sbin/nologin' >> "$new/etc/passwd"
	echo 'maintenance-os:x:65532:' >> "$new/etc/group"
}
echo "$version" > "$new/.maintenance-os"
rm -rf "$rootfs"
mv "$new" "$rootfs"
say "root file system: $(du -sh "$rootfs" | cut -f1)"
