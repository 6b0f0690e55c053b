#!/usr/bin/env bash
# Installs the Debian packages that the cluster, the images and the builds need, only those that are missing.
#   packages.sh            those of the demo
#   packages.sh browser    and the browser that the tests walk through the pages with
source "$(dirname "$0")/lib.sh"

wanted=(runc containernetworking-plugins iptables conntrack buildah debootstrap iproute2 openssl ca-certificates curl jq make gcc libc6-dev binutils shellcheck)
# Go and Rust fetch the version that the project asks for themselves, so that Debian 13's packages do.
command -v go > /dev/null || wanted+=(golang-go)
command -v cargo > /dev/null || wanted+=(rustup)
[ "${1:-}" != browser ] || wanted+=(chromium chromium-driver fonts-dejavu-core)

missing=()
for package in "${wanted[@]}"; do
	dpkg-query -W -f '${db:Status-Status}\n' "$package" 2> /dev/null | grep -qx installed || missing+=("$package")
done
if [ ${#missing[@]} != 0 ]; then
	need_root
	say "installing ${missing[*]}"
	apt-get update -q
	for package in golang-go rustup; do
		[[ " ${missing[*]} " != *" $package "* ]] || apt-cache show "$package" > /dev/null 2>&1 ||
			die "this Debian has no package $package: install Go 1.21 or newer and rustup by hand, then run this again"
	done
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
fi

release=$(go env GOVERSION 2> /dev/null | grep -oE '[0-9]+\.[0-9]+' | head -n 1)
[ "$(printf '%s\n' 1.21 "$release" | sort -V | head -n 1)" = 1.21 ] ||
	die "Go $release is too old (1.21 or newer fetches what it needs): install a newer one by hand, then run this again"
(cd "$checkout" && cargo --version > /dev/null 2>&1) || {
	say "installing Rust by rustup"
	rustup toolchain install 1.95 --profile minimal --component clippy --component rustfmt
	rustup default 1.95
}
