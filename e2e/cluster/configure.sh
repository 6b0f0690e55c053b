#!/usr/bin/env bash
# Writes the cluster's certificates, kubeconfigs and configuration files below $MOS_CACHE/cluster, once.
source "$(dirname "$0")/lib.sh"

mkdir -p "$cluster"/{pki,log,pid,cni,volumes}
chmod 711 "$cluster"
pki=$cluster/pki

kubeconfig() { # user
	cat > "$cluster/$1.kubeconfig" <<-YAML
	apiVersion: v1
	kind: Config
	clusters: [{name: maintenance-os, cluster: {server: https://$inside_address:6443, certificate-authority: $pki/ca.crt}}]
	users: [{name: $1, user: {client-certificate: $pki/$1.crt, client-key: $pki/$1.key}}]
	contexts: [{name: maintenance-os, context: {cluster: maintenance-os, user: $1}}]
	current-context: maintenance-os
	YAML
	chmod 600 "$cluster/$1.kubeconfig"
}

if [ ! -f "$pki/complete" ]; then
	authority "$pki" kube-ca
	service=kubernetes.default
	certificate "$pki" apiserver /CN=kube-apiserver \
		"DNS:kubernetes,DNS:$service,DNS:$service.svc,DNS:$service.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:10.96.0.1,IP:$inside_address"
	certificate "$pki" admin /O=system:masters/CN=admin DNS:admin
	certificate "$pki" controller-manager /CN=system:kube-controller-manager DNS:controller-manager
	certificate "$pki" scheduler /CN=system:kube-scheduler DNS:scheduler
	certificate "$pki" proxy /CN=system:kube-proxy DNS:proxy
	certificate "$pki" kubelet /O=system:nodes/CN=system:node:node1 "DNS:node1,IP:$inside_address"
	openssl genrsa -out "$pki/sa.key" 2048 2> /dev/null
	openssl rsa -in "$pki/sa.key" -pubout -out "$pki/sa.pub" 2> /dev/null
	chmod 600 "$pki"/*.key
	for user in admin controller-manager scheduler proxy kubelet; do kubeconfig "$user"; done
	touch "$pki/complete"
fi

cat > "$cluster/cni/10-bridge.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "maintenance-os", "plugins": [
	{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
		"ipam": {"type": "host-local", "dataDir": "$cluster/cni/addresses",
			"ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
	{"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON

# restrict_oom_score_adj: in a container or virtual machine without CAP_SYS_RESOURCE no pod would start otherwise.
cat > "$cluster/containerd.toml" <<TOML
version = 3
root = "$cluster/containerd/root"
state = "$cluster/containerd/state"
[grpc]
  address = "$cluster/containerd.sock"
[ttrpc]
  address = "$cluster/containerd.sock.ttrpc"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "localhost/pause:1"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "$cluster/cni"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = false
      Root = "$cluster/runc"
TOML

cat > "$cluster/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: /
enforceNodeAllocatable: []
containerRuntimeEndpoint: unix://$cluster/containerd.sock
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $pki/kubelet.crt
tlsPrivateKeyFile: $pki/kubelet.key
evictionHard: {memory.available: 1Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
maxPods: 200
serializeImagePulls: false
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: ""
podLogsDir: $cluster/log/pods
volumePluginDir: $cluster/volume-plugins
YAML
