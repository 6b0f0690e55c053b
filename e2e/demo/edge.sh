#!/usr/bin/env bash
# Installs what stands in front of the app in the cluster of e2e/cluster: the Gateway API's definitions, Traefik, and a certificate
# for *.maintenance-os.com from an authority of the demo's own; and starts the name server of the customers' domains.
# Can be run again: what is there stays.
source "$(dirname "$0")/../cluster/lib.sh"
need_root
export KUBECONFIG=$cluster/admin.kubeconfig
here=$checkout/e2e/demo
tls=$cluster/demo/tls
apply() { kubectl apply --server-side --force-conflicts --field-manager=demo -f - > /dev/null; }

apply < "$bin/gateway-api.yaml"
kubectl wait --for=condition=Established --timeout=60s crd/gateways.gateway.networking.k8s.io crd/httproutes.gateway.networking.k8s.io \
	crd/gatewayclasses.gateway.networking.k8s.io > /dev/null
sed "s/TRAEFIK_VERSION/$(cat "$bin/.traefik.version")/" "$here/edge.yaml" | apply
[ -f "$tls/ca.crt" ] || authority "$tls" "demo CA"
[ -f "$tls/wildcard.crt" ] || certificate "$tls" wildcard "/CN=*.maintenance-os.com" "DNS:*.maintenance-os.com"
kubectl -n maintenance-os create secret tls maintenance-os-wildcard-tls --cert="$tls/wildcard.crt" --key="$tls/wildcard.key" \
	--dry-run=client -o yaml | apply
kubectl -n platform rollout status deployment/traefik --timeout=120s
"$here/dns.sh" start
