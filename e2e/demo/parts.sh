#!/usr/bin/env bash
# Installs what the app needs beside PostgreSQL in the cluster of e2e/cluster: Redis, an S3 server with two accounts and their
# buckets, a mail server; and the Secrets with which the app reaches them. Can be run again: what is there stays.
source "$(dirname "$0")/../cluster/lib.sh"
need_root
export KUBECONFIG=$cluster/admin.kubeconfig
here=$checkout/e2e/demo
state=$cluster/demo

secret() { [ -s "$state/$1.password" ] || (umask 077 && password > "$state/$1.password"); cat "$state/$1.password"; }
apply() { kubectl apply --server-side --force-conflicts --field-manager=demo -f - > /dev/null; }
# secret_of NAMESPACE NAME ARGUMENTS…: the values travel in files, so that no process list shows them.
secret_of() { kubectl -n "$1" create secret generic "$2" --dry-run=client -o yaml "${@:3}" | apply; }

volume() { # name, size
	mkdir -p "$cluster/volumes/$1"
	chown 65532:65532 "$cluster/volumes/$1"
	cat <<-YAML
	---
	apiVersion: v1
	kind: PersistentVolume
	metadata: { name: $1 }
	spec:
	  capacity: { storage: $2 }
	  accessModes: [ReadWriteOnce]
	  persistentVolumeReclaimPolicy: Retain
	  storageClassName: ""
	  hostPath: { path: $cluster/volumes/$1 }
	YAML
}

redis_configuration() {
	cat <<-CONF
	requirepass $(secret redis)
	dir /data
	# Sessions and queues outlive a restart.
	appendonly yes
	save ""
	maxmemory 256mb
	maxmemory-policy volatile-lru
	CONF
}

# The app's account and the backups': each owns its bucket and sees no other.
s3_accounts() {
	local account
	for account in app backup; do
		jq -n --arg access "maintenance-os-$account" --rawfile secret "$state/s3-$account.password" \
			'{($access): {access: $access, secret: ($secret | rtrimstr("\n")), role: "user"}}'
	done | jq -s '{accessAccounts: add}'
}
# s3_admin COMMAND…: in the pod, where the administrator's keys are in the environment.
s3_admin() { kubectl -n platform exec -i statefulset/s3 -- /versitygw admin "$@"; }
bucket() { # name, owner
	s3_admin list-buckets | awk '{ print $1 }' | grep -qxF "$1" || s3_admin create-bucket --bucket "$1" --owner "$2"
}

mkdir -p "$state"
chmod 700 "$state"
for name in redis s3-root s3-app s3-backup stripe portal; do secret "$name" > /dev/null; done

{
	cat <<-YAML
	apiVersion: v1
	kind: Namespace
	metadata: { name: platform, labels: { pod-security.kubernetes.io/enforce: restricted } }
	YAML
	volume redis 1Gi
	volume s3 20Gi
} | apply
secret_of databases redis --from-file=password=<(secret redis | tr -d '\n') --from-file=redis.conf=<(redis_configuration)
secret_of platform s3 --from-literal=access=root --from-file=secret=<(secret s3-root | tr -d '\n') --from-file=users.json=<(s3_accounts)

# A changed configuration or image makes a new pod.
hash=$({ redis_configuration; s3_accounts; cat "$cluster/redis-image"; } | sha256sum | cut -c1-12)
sed "s/CONFIGURATION/$hash/; s/S3_VERSION/$(cat "$bin/.versitygw.version")/; s/SMTP_VERSION/$(cat "$bin/.smtp-debug-server.version")/" \
	"$here/parts.yaml" | apply
for part in databases/statefulset/redis platform/statefulset/s3 platform/deployment/mail; do
	kubectl -n "${part%%/*}" rollout status "${part#*/}" --timeout=120s
done
bucket maintenance-os maintenance-os-app
bucket maintenance-os-backups maintenance-os-backup

# What the app is given.
secret_of maintenance-os redis --from-file=password=<(secret redis | tr -d '\n')
secret_of maintenance-os s3 --from-literal=AWS_ACCESS_KEY_ID=maintenance-os-app \
	--from-file=AWS_SECRET_ACCESS_KEY=<(secret s3-app | tr -d '\n')
secret_of maintenance-os s3-backup --from-literal=AWS_ACCESS_KEY_ID=maintenance-os-backup \
	--from-file=AWS_SECRET_ACCESS_KEY=<(secret s3-backup | tr -d '\n')
secret_of maintenance-os mail --from-literal=url=smtp://mail.platform.svc.cluster.local:1025
# What signs Stripe's events; here there is nobody but tests who sends some.
secret_of maintenance-os maintenance-os-stripe --from-file=webhook=<(printf 'whsec_%s' "$(secret stripe | tr -d '\n')")
# The portal's key for second factors, and its first administrator.
[ -s "$state/portal.keys" ] || (umask 077 && printf 'k1:%s' "$(openssl rand -hex 32)" > "$state/portal.keys")
secret_of maintenance-os maintenance-os-portal --from-file=keys="$state/portal.keys" --from-literal=first-email=admin@maintenance-os.com \
	--from-file=first-password=<(secret portal | tr -d '\n')
