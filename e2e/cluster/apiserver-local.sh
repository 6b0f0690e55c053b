#!/usr/bin/env bash
# The Kubernetes API alone, for tests that need no nodes and no controllers: etcd and kube-apiserver on loopback. Needs no root.
# Its data is thrown away on stop.
#   apiserver-local.sh start|stop|env
# start also writes …/apiserver-local/env, to be sourced; env prints it.
# MOS_APISERVER_NAME and MOS_APISERVER_PORT start another one beside it; etcd takes the two ports below that of the API.
source "$(dirname "$0")/lib.sh"

name=${MOS_APISERVER_NAME:-apiserver-local}
port=${MOS_APISERVER_PORT:-16443}
client_port=$((port - 2))
peer_port=$((port - 1))
dir=$cache/$name
pki=$dir/pki
export KUBECONFIG=$dir/admin.kubeconfig

# The word is a path that no other etcd or kube-apiserver has on its command line.
etcd_runs() { is_running "$dir/etcd.pid" "--data-dir $dir/etcd "; }
api_runs() { is_running "$dir/kube-apiserver.pid" "--client-ca-file=$pki/ca.crt"; }
etcd_ready() { etcd_runs && curl -fsS "http://127.0.0.1:$client_port/health"; }
api_ready() { api_runs && kubectl get --raw /readyz; }

# launch NAME ARGUMENTS…: in a session of its own, with its log and its process id in files.
launch() {
	local program=$1
	shift
	setsid "$bin/$program" "$@" > "$logs/$name.$program.log" 2>&1 < /dev/null 9>&- &
	echo $! > "$dir/$program.pid"
}
ready() { # program, command
	until_true 60 "$1 is ready" "$2" || { tail -n 30 "$logs/$name.$1.log" >&2; die "$1 did not start, see $logs/$name.$1.log"; }
}

certificates() {
	[ ! -f "$pki/complete" ] || return 0
	authority "$pki" "$name CA"
	certificate "$pki" apiserver /CN=kube-apiserver DNS:localhost,DNS:kubernetes.default.svc,IP:127.0.0.1
	certificate "$pki" admin /O=system:masters/CN=admin DNS:admin
	openssl genrsa -out "$pki/sa.key" 2048 2> /dev/null
	openssl rsa -in "$pki/sa.key" -pubout -out "$pki/sa.pub" 2> /dev/null
	chmod 600 "$pki"/*.key
	touch "$pki/complete"
}

start() {
	if etcd_runs && api_runs && api_ready > /dev/null 2>&1; then return; fi
	stop
	for program in etcd kube-apiserver kubectl helm; do
		[ -x "$bin/$program" ] || die "no $bin/$program: run $here/build.sh"
	done
	mkdir -p "$dir"
	chmod 711 "$dir"
	certificates
	(umask 077 && cat > "$KUBECONFIG") <<-YAML
		apiVersion: v1
		kind: Config
		clusters: [{name: $name, cluster: {server: https://127.0.0.1:$port, certificate-authority: $pki/ca.crt}}]
		users: [{name: admin, user: {client-certificate: $pki/admin.crt, client-key: $pki/admin.key}}]
		contexts: [{name: $name, context: {cluster: $name, user: admin}}]
		current-context: $name
	YAML
	launch etcd --name local --data-dir "$dir/etcd" --unsafe-no-fsync --log-level warn \
		--listen-client-urls "http://127.0.0.1:$client_port" --advertise-client-urls "http://127.0.0.1:$client_port" \
		--listen-peer-urls "http://127.0.0.1:$peer_port" --initial-advertise-peer-urls "http://127.0.0.1:$peer_port" \
		--initial-cluster "local=http://127.0.0.1:$peer_port"
	ready etcd etcd_ready
	# Authorization and admission as in up.sh. Without the reconciler of endpoints the advertised address may be loopback:
	# nothing but the Service "kubernetes" tells it to anybody, and here are no pods that ask.
	launch kube-apiserver --etcd-servers="http://127.0.0.1:$client_port" --bind-address=127.0.0.1 --secure-port="$port" \
		--advertise-address=127.0.0.1 --endpoint-reconciler-type=none \
		--client-ca-file="$pki/ca.crt" --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
		--service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$pki/sa.pub" \
		--service-account-signing-key-file="$pki/sa.key" --service-cluster-ip-range=10.96.0.0/16 \
		--authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction
	ready kube-apiserver api_ready
	cat > "$dir/env" <<-ENV
		export MOS_TEST_KUBECONFIG='$KUBECONFIG'
		export MOS_TEST_HELM='$bin/helm'
	ENV
}

# The API first: it writes to etcd until it ends.
stop() {
	stop_by_pidfile "$dir/kube-apiserver.pid" "--client-ca-file=$pki/ca.crt" 20
	stop_by_pidfile "$dir/etcd.pid" "--data-dir $dir/etcd "
	rm -rf "$dir/etcd" "$dir/env"
}

lock "$name"
case ${1:-} in
	start) start && say "Kubernetes API on 127.0.0.1:$port; for the tests: source $dir/env" ;;
	stop) stop ;;
	env) [ -s "$dir/env" ] || die "not running: $0 start"; cat "$dir/env" ;;
	*) die "usage: $0 start|stop|env" ;;
esac
