#!/usr/bin/env bash
# Stops what up.sh started, unmounts what it mounted, removes its network and its state. Binaries and image layers stay.
source "$(dirname "$0")/lib.sh"
need_root
lock cluster
[ -d "$cluster" ] || [ -e "/run/netns/$namespace" ] || exit 0

socket=$cluster/containerd.sock
# our_shims: process ids of the containers' shims that belong to our containerd, and to no other on this machine.
our_shims() {
	local directory line
	for directory in /proc/[0-9]*; do
		line=$(tr '\0' ' ' 2> /dev/null < "$directory/cmdline") || continue
		case $line in *containerd-shim-runc-v2*"-address $socket"*) echo "${directory#/proc/}" ;; esac
	done
}
mounts_below() { awk -v dir="$1/" 'index($2, dir) == 1 { print $2 }' /proc/self/mounts | sort -r; }

for name in kube-proxy kubelet kube-scheduler kube-controller-manager; do stop_by_pidfile "$cluster/pid/$name" "$bin/$name"; done

# Containers: all at once, without waiting for their grace.
if is_running "$cluster/pid/containerd" "$bin/containerd"; then
	containers=$(timeout 20 ctr -a "$socket" -n k8s.io containers ls -q 2> /dev/null || true)
	for container in $containers; do
		timeout 10 ctr -a "$socket" -n k8s.io tasks delete --force "$container" > /dev/null 2>&1 &
	done
	wait
fi
for name in kube-apiserver etcd containerd; do stop_by_pidfile "$cluster/pid/$name" "$bin/$name"; done
shims=$(our_shims)
for pid in $shims; do
	mapfile -t children < <(cat /proc/"$pid"/task/*/children 2> /dev/null | tr ' ' '\n' | grep . || true)
	kill -9 "$pid" "${children[@]}" 2> /dev/null || true
done

no_mounts() {
	local mount
	for mount in $(mounts_below "$cluster"); do umount "$mount" 2> /dev/null || true; done
	[ -z "$(mounts_below "$cluster")" ]
}
until_true 20 "everything below $cluster is unmounted" no_mounts
"$here/network.sh" down

# The containers' control groups, and the few things that lie outside our folder whatever one configures.
for directory in /sys/fs/cgroup/{,*/}kubepods; do
	[ ! -d "$directory" ] || find "$directory" -depth -type d -exec rmdir {} + 2> /dev/null || true
done
{ grep -rhoEs '/run/containerd/s/[0-9a-f]{64}' "$cluster/containerd/state/" || true; } | xargs -r rm -f
rm -f /var/lib/kubelet/device-plugins/kubelet.sock
{ grep -lsF "$cluster/" /var/lib/cni/results/* || true; } | xargs -r rm -f
rmdir --ignore-fail-on-non-empty /var/lib/cni/results /var/lib/cni /var/lib/kubelet/device-plugins /var/lib/kubelet /run/containerd/s /run/containerd 2> /dev/null || true
for link in /var/log/containers/*; do
	case $(readlink "$link" || true) in "$cluster"/*) rm -f "$link" ;; esac
done
rm -rf --one-file-system "$cluster"
say "the cluster is gone"
