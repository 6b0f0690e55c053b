#!/usr/bin/env bash
# The cluster's network: a network namespace with one cable to the host, and the host's routes to pods and services.
#   network.sh up|down
source "$(dirname "$0")/lib.sh"
need_root

pods=10.244.0.0/24
services=10.96.0.0/16
inside() { nsenter --net="/run/netns/$namespace" "$@"; }

up() {
	[ -e "/run/netns/$namespace" ] || ip netns add "$namespace"
	ip link show mos-host > /dev/null 2>&1 || ip link add mos-host type veth peer name eth0 netns "$namespace"
	ip addr replace "$outside_address/24" dev mos-host
	ip link set mos-host up
	inside ip link set lo up
	inside ip addr replace "$inside_address/24" dev eth0
	inside ip link set eth0 up
	inside ip route replace default via "$outside_address"
	inside sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
	ip route replace "$pods" via "$inside_address"
	ip route replace "$services" via "$inside_address"
}

down() {
	ip route del "$pods" via "$inside_address" 2> /dev/null || true
	ip route del "$services" via "$inside_address" 2> /dev/null || true
	ip link del mos-host 2> /dev/null || true
	[ ! -e "/run/netns/$namespace" ] || ip netns del "$namespace"
}

case ${1:-} in
	up | down) "$1" ;;
	*) die "usage: $0 up|down" ;;
esac
