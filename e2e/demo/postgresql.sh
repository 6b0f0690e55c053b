#!/usr/bin/env bash
# Installs the demo's PostgreSQL server in the cluster of e2e/cluster, and the two Secrets with which the operator reaches it.
# Can be run again: what is there stays. Passwords are random, made once, and never printed.
source "$(dirname "$0")/../cluster/lib.sh"
need_root
export KUBECONFIG=$cluster/admin.kubeconfig
here=$checkout/e2e/demo
state=$cluster/demo
hba=$checkout/charts/maintenance-os/files/pg_hba.conf.example
host=pg-demo-1.databases.svc.cluster.local

secret() { [ -s "$state/$1.password" ] || (umask 077 && password > "$state/$1.password"); cat "$state/$1.password"; }
apply() { kubectl apply --server-side --force-conflicts --field-manager=demo -f - > /dev/null; }

mkdir -p "$state" "$cluster/volumes/pg-demo-1"
chmod 700 "$state"
chown 101:103 "$cluster/volumes/pg-demo-1"
[ -f "$state/complete" ] || {
	authority "$state" "maintenance-os demo CA"
	certificate "$state" server "/CN=$host" "DNS:$host,DNS:pg-demo-1.databases.svc,DNS:pg-demo-1.databases"
	touch "$state/complete"
}

apply <<YAML
apiVersion: v1
kind: Namespace
metadata: { name: databases }
---
apiVersion: v1
kind: Namespace
metadata: { name: maintenance-os, labels: { pod-security.kubernetes.io/enforce: restricted } }
---
apiVersion: v1
kind: Namespace
metadata: { name: customers, labels: { pod-security.kubernetes.io/enforce: restricted } }
---
apiVersion: v1
kind: PersistentVolume
metadata: { name: pg-demo-1 }
spec:
  capacity: { storage: 20Gi }
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: ""
  hostPath: { path: $cluster/volumes/pg-demo-1 }
YAML
kubectl -n databases create configmap pg-demo-1 --dry-run=client -o yaml \
	--from-file="$here/postgresql.conf" --from-file="pg_hba.conf=$hba" | apply
kubectl -n databases create secret tls pg-demo-1-tls --dry-run=client -o yaml --cert="$state/server.crt" --key="$state/server.key" | apply
# A changed configuration makes a new pod.
hash=$(cat "$here/postgresql.conf" "$hba" | sha256sum | cut -c1-12)
sed "s/CONFIGURATION/$hash/" "$here/postgresql.yaml" | apply
kubectl -n databases rollout status statefulset/pg-demo-1 --timeout=180s

# The administrator's part. The passwords travel on standard input, so that no process list shows them.
{
	printf '\\set provisioner_password %s\n\\set central_password %s\n' "$(secret provisioner)" "$(secret central)"
	cat "$here/administrator.sql"
} | kubectl -n databases exec -i pg-demo-1-0 -- psql -X -q -U postgres -f - > /dev/null

# What the operator is given: how to reach the server as the provisioner, and the central database.
kubectl -n maintenance-os create secret generic pg-demo-1 --dry-run=client -o yaml \
	--from-literal=host="$host" --from-literal=port=5432 --from-literal=username=maintenance_os_provisioner \
	--from-file=password=<(secret provisioner | tr -d '\n') --from-file=ca.crt="$state/ca.crt" | apply
kubectl -n maintenance-os create secret generic maintenance-os-central --dry-run=client -o yaml \
	--from-file=url=<(printf 'postgres://maintenance_os_central:%s@%s:5432/maintenance_os_central?sslmode=verify-full' "$(secret central)" "$host") \
	--from-file=ca.crt="$state/ca.crt" | apply
