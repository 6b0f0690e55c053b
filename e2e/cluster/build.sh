#!/usr/bin/env bash
# Builds the cluster's programs from their Go modules into $MOS_CACHE/bin, each only when its stamp is missing or of another version.
source "$(dirname "$0")/lib.sh"

kubernetes=v1.37.2
containerd=v2.4.2
helm=v4.3.1
coredns=v1.15.0
versitygw=v1.8.0
smtp=v0.25.1
traefik=v3.7.13
gateway_api=v1.6.1

export GOCACHE=${MOS_GOCACHE:-$cache/go-build} GOBIN=$bin GOFLAGS=-buildvcs=false GOTOOLCHAIN=${GOTOOLCHAIN:-auto}

# unless_built NAME VERSION COMMAND…
unless_built() {
	local name=$1 version=$2 stamp=$bin/.$1.version started=$SECONDS
	shift 2
	if [ -x "$bin/$name" ] && [ "$(cat "$stamp" 2> /dev/null)" = "$version" ]; then return; fi
	command -v go > /dev/null || die "no Go here: install Go 1.26 or newer (https://go.dev/dl) and put it in PATH"
	say "building $name $version"
	"$@"
	echo "$version" > "$stamp"
	say "built $name in $((SECONDS - started)) s"
}

build_kubernetes() {
	local component=k8s.io/component-base/version
	(cd "$here/kubernetes" && go build -o "$bin/kubernetes" -ldflags "-s -w -X $component.gitVersion=$kubernetes \
		-X $component.gitMajor=1 -X $component.gitMinor=37 -X k8s.io/client-go/pkg/version.gitVersion=$kubernetes" .)
}
build_containerd() {
	go install -tags 'no_btrfs no_devmapper no_zfs' \
		github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}@$containerd
}
# Without the C library, because its image holds nothing but this file.
build_coredns() { CGO_ENABLED=0 go install -ldflags '-s -w' "github.com/coredns/coredns@$coredns"; }
# Also without it: the image of the S3 server, and the one that takes mail and prints it.
build_versitygw() { CGO_ENABLED=0 go install -ldflags '-s -w' "github.com/versity/versitygw/cmd/versitygw@$versitygw"; }
build_smtp() { CGO_ENABLED=0 go install -ldflags '-s -w' "github.com/emersion/go-smtp/cmd/smtp-debug-server@$smtp"; }
build_traefik() { "$here/traefik/build.sh" "$traefik" "$cache/traefik-build" "$bin/traefik"; }
# No program: the definitions of the Gateway API, as its module has them.
gateway_definitions() {
	local module
	module=$(cd / && go mod download -json "sigs.k8s.io/gateway-api@$gateway_api" | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
	awk 'FNR == 1 { print "---" } 1' "$module"/config/crd/standard/gateway.networking.k8s.io_{gatewayclasses,gateways,httproutes,listenersets,referencegrants,grpcroutes,tlsroutes,backendtlspolicies}.yaml > "$bin/gateway-api.yaml"
	chmod u+w,+x "$bin/gateway-api.yaml"
}
build_pause() {
	local source=$bin/.pause.c
	echo 'int pause(void); int main(void) { for (;;) pause(); }' > "$source"
	gcc -static -O2 -o "$bin/pause" "$source"
	rm "$source"
}

unless_built kubernetes "$kubernetes" build_kubernetes
unless_built containerd "$containerd" build_containerd
unless_built helm "$helm" go install "helm.sh/helm/v4/cmd/helm@$helm"
unless_built coredns "$coredns" build_coredns
unless_built versitygw "$versitygw" build_versitygw
unless_built smtp-debug-server "$smtp" build_smtp
unless_built pause 1 build_pause
unless_built traefik "$traefik" build_traefik
unless_built gateway-api.yaml "$gateway_api" gateway_definitions
for name in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
	ln -sf kubernetes "$bin/$name"
done
