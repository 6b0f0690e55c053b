#!/usr/bin/env bash
# Starts a one-node Kubernetes cluster in a network namespace of its own. Does nothing when it is already healthy;
# clears away what is left of one that is not.
source "$(dirname "$0")/lib.sh"
need_root
lock cluster
export KUBECONFIG=$cluster/admin.kubeconfig

components=(etcd kube-apiserver kube-controller-manager kube-scheduler containerd kubelet kube-proxy)
healthy() {
	local name
	for name in "${components[@]}"; do is_running "$cluster/pid/$name" "$bin/$name" || return 1; done
	node_ready && kubectl -n kube-system wait --for=condition=Available deployment/coredns --timeout=30s
}
node_ready() { kubectl wait --for=condition=Ready node/node1 --timeout=1s; }

# start NAME ARGUMENTS…: in the network namespace, in a session of its own, with its log and its process id in files.
start() {
	local name=$1
	shift
	[ -x "$bin/$name" ] || die "no $bin/$name: run $here/build.sh"
	setsid nsenter --net="/run/netns/$namespace" "$bin/$name" "$@" > "$cluster/log/$name.log" 2>&1 < /dev/null 9>&- &
	echo $! > "$cluster/pid/$name"
}
# ready NAME SECONDS COMMAND…: waits, and shows the component's log when it does not come.
ready() {
	local name=$1 seconds=$2
	shift 2
	until_true "$seconds" "$name is ready" "$@" || { tail -n 30 "$cluster/log/$name.log" >&2; die "$name did not start, see $cluster/log/$name.log"; }
}

if [ -d "$cluster/pid" ]; then
	if healthy > /dev/null 2>&1; then say "the cluster is up: export KUBECONFIG=$KUBECONFIG"; exit; fi
	say "a cluster that is not healthy is in the way: clearing it away"
	"$here/down.sh"
fi

"$here/configure.sh"
"$here/network.sh" up
cd "$cluster"

start etcd --name n1 --data-dir "$cluster/etcd-data" --unsafe-no-fsync --log-level warn --quota-backend-bytes 4294967296 \
	--auto-compaction-mode periodic --auto-compaction-retention 5m \
	--listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
	--listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster n1=http://127.0.0.1:2380
start containerd -c containerd.toml
ready etcd 30 nsenter --net="/run/netns/$namespace" curl -fsS http://127.0.0.1:2379/health
start kube-apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --advertise-address="$inside_address" --secure-port=6443 \
	--client-ca-file=pki/ca.crt --tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key \
	--service-account-issuer=https://kubernetes.default.svc --service-account-key-file=pki/sa.pub --service-account-signing-key-file=pki/sa.key \
	--service-cluster-ip-range=10.96.0.0/16 --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged \
	--kubelet-client-certificate=pki/admin.crt --kubelet-client-key=pki/admin.key --kubelet-preferred-address-types=InternalIP \
	--kubelet-certificate-authority=pki/ca.crt
ready containerd 30 ctr -a "$cluster/containerd.sock" version
"$here/images.sh" cluster
ready kube-apiserver 60 kubectl get --raw /readyz

start kube-controller-manager --kubeconfig controller-manager.kubeconfig --use-service-account-credentials \
	--service-account-private-key-file=pki/sa.key --root-ca-file=pki/ca.crt --leader-elect=false --cluster-cidr=10.244.0.0/16 --allocate-node-cidrs
start kube-scheduler --kubeconfig scheduler.kubeconfig --leader-elect=false
start kubelet --config kubelet.yaml --kubeconfig kubelet.kubeconfig --hostname-override node1 --root-dir "$cluster/kubelet" --node-ip "$inside_address"
ready kubelet 90 node_ready
# After the node is Ready: it ends itself when the node's address changes.
start kube-proxy --kubeconfig proxy.kubeconfig --proxy-mode=iptables --cluster-cidr=10.244.0.0/16 --hostname-override=node1 \
	--nodeport-addresses=primary --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0

kubectl apply -f "$here/coredns.yaml" > "$cluster/log/coredns.apply.log"
kubectl -n kube-system rollout status deployment/coredns --timeout=90s >> "$cluster/log/coredns.apply.log" ||
	{ kubectl -n kube-system describe pods >&2; die "CoreDNS did not start"; }
say "the cluster is up: export KUBECONFIG=$KUBECONFIG"
