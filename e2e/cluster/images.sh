#!/usr/bin/env bash
# Builds images without a registry and imports them into the cluster's containerd, each only when it is not there yet.
#   images.sh cluster            pause and CoreDNS
#   images.sh postgres           the demo's PostgreSQL
#   images.sh parts              what the app needs beside it: Redis, an S3 server, a mail server, Traefik
#   images.sh app BINARY         the project's image with that binary; prints its name, localhost/maintenance-os:<hash>
# The base (rootfs.sh) is one layer, kept in $MOS_CACHE/images/blobs and imported once.
source "$(dirname "$0")/lib.sh"
need_root
lock images

export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=${STORAGE_DRIVER:-overlay}
buildah() { command buildah --root "$images/storage" --runroot "$images/run" "$@"; }
containerd_ctr() { ctr -a "$cluster/containerd.sock" -n k8s.io "$@" 2> >(grep -v 'msg="DEPRECATION' >&2); }
hash_of() { cat "$@" | sha256sum | cut -c1-12; }

# scratch_image NAME BINARY: an image with one static program; as an archive in the cache.
scratch_image() {
	local name=$1 binary=$2 context archive
	if present "$name"; then return; fi
	archive=$images/${2##*/}-$(hash_of "$binary").tar
	if [ ! -f "$archive" ]; then
		context=$(mktemp -d)
		cp "$binary" "$context/"
		printf 'FROM scratch\nCOPY %s /%s\nENTRYPOINT ["/%s"]\n' "${binary##*/}" "${binary##*/}" "${binary##*/}" > "$context/Dockerfile"
		buildah bud -q -t "$name" "$context" > /dev/null
		buildah push -q "$name" "oci-archive:$archive.new:$name"
		mv "$archive.new" "$archive"
		rm -r "$context"
	fi
	containerd_ctr images import "$archive" > /dev/null
}

# base_image: prints the name of the image that holds the root file system as its only layer.
base_image() {
	local name
	"$here/rootfs.sh"
	name=localhost/base:$(hash_of "$rootfs/.maintenance-os" "$rootfs/var/lib/dpkg/status")
	if ! buildah inspect --type image "$name" > /dev/null 2>&1; then
		say "making $name"
		local context
		context=$(mktemp -d -p "$images")
		tar -C "$rootfs" --one-file-system --numeric-owner --exclude=./dev/* --exclude=./proc/* --exclude=./sys/* -cf "$context/rootfs.tar" .
		printf 'FROM scratch\nADD rootfs.tar /\nCMD ["/bin/bash"]\n' > "$context/Dockerfile"
		buildah bud -q -t "$name" "$context" > /dev/null
		rm -r "$context"
	fi
	echo "$name"
}

# import NAME: pushes it into an OCI layout, where layers that are already there are kept, and hands the cluster what it lacks.
import() {
	local name=$1 one present manifest digest files=(oci-layout index.json)
	one=$images/one
	rm -rf "$one"
	mkdir -p "$images/blobs" "$one"
	ln -s "$images/blobs" "$one/blobs"
	buildah push -q --disable-compression "$name" "oci:$one:$name"
	present=$(containerd_ctr content ls -q)
	manifest=$(jq -r '.manifests[0].digest' "$one/index.json")
	for digest in "$manifest" $(jq -r '.config.digest, .layers[].digest' "$one/blobs/${manifest/://}"); do
		grep -qF "$digest" <<< "$present" || files+=("blobs/${digest/://}")
	done
	tar -C "$one" -cf - "${files[@]}" | containerd_ctr images import - > /dev/null
	present "$name" || die "containerd did not take $name"
	# The base layer (the first) is large and shared: it stays. The rest is made again in no time.
	digest=$(jq -r '.layers[0].digest' "$one/blobs/${manifest/://}")
	find "$images/blobs" -type f ! -name "${digest#*:}" -delete
	rm -rf "$one"
}
present() { grep -qxF "$1" <<< "$(containerd_ctr images ls -q)"; }

version_of() { cat "$bin/.$1.version"; }

# redis_image: the root file system again, which has Redis, with its program in front.
redis_image() {
	local base
	base=$(base_image)
	[ "$(cat "$cluster/redis-image" 2> /dev/null)" != "$base" ] || return 0
	local context
	context=$(mktemp -d -p "$images")
	printf 'FROM %s\nUSER 65532:65532\nENTRYPOINT ["/usr/bin/redis-server"]\n' "$base" > "$context/Dockerfile"
	buildah bud -q --layers -t localhost/redis:8 "$context" > /dev/null
	rm -r "$context"
	import localhost/redis:8
	echo "$base" > "$cluster/redis-image"
}

app() {
	local binary=$1 name context old
	name=localhost/maintenance-os:$(hash_of "$binary" "$checkout/Dockerfile")
	if ! present "$name"; then
		context=$(mktemp -d -p "$images")
		cp "$binary" "$context/maintenance-os"
		strip "$context/maintenance-os"
		buildah bud -q --layers --target prebuilt --build-arg BASE_IMAGE="$(base_image)" \
			-f "$checkout/Dockerfile" -t "$name" "$context" > /dev/null
		rm -r "$context"
		import "$name"
		for old in $(buildah images --filter reference=localhost/maintenance-os --format '{{.Name}}:{{.Tag}}' | grep -vxF "$name"); do
			buildah rmi "$old" > /dev/null || true
		done
	fi
	echo "$name"
}

case ${1:-} in
	cluster)
		scratch_image localhost/pause:1 "$bin/pause"
		scratch_image localhost/coredns:1.15.0 "$bin/coredns"
		;;
	postgres)
		[ "$(chroot "$rootfs" id -u postgres):$(chroot "$rootfs" id -g postgres)" = 101:103 ] ||
			die "the user postgres of $rootfs has other numbers than e2e/cluster/postgres/Dockerfile says"
		wanted=$(hash_of "$here"/postgres/* "$rootfs/.maintenance-os")
		[ "$(cat "$cluster/postgres-image" 2> /dev/null)" = "$wanted" ] || {
			buildah bud -q --layers --build-arg BASE_IMAGE="$(base_image)" -t localhost/postgres:17 "$here/postgres" > /dev/null
			import localhost/postgres:17
			echo "$wanted" > "$cluster/postgres-image"
		}
		;;
	parts)
		redis_image
		scratch_image "localhost/versitygw:$(version_of versitygw)" "$bin/versitygw"
		scratch_image "localhost/traefik:$(version_of traefik)" "$bin/traefik"
		scratch_image "localhost/smtp-debug-server:$(version_of smtp-debug-server)" "$bin/smtp-debug-server"
		;;
	app) app "${2:?usage: images.sh app BINARY}" ;;
	*) die "usage: $0 cluster|postgres|parts|app BINARY" ;;
esac
