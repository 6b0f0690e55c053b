#!/usr/bin/env bash
# From nothing to tenants that answer: packages, builds, cluster, images, PostgreSQL, Redis, S3, mail, chart, samples. Can be run
# again and again: what is there is kept, what changed is replaced. One line per step; each step's output is in its log.
source "$(dirname "$0")/../cluster/lib.sh"
started=$SECONDS
export KUBECONFIG=$cluster/admin.kubeconfig
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
profile=${MOS_PROFILE:-dev}
entry=http://$inside_address:30080
domain=maintenance-os.com

elsewhere='The same runs in any cluster that KUBECONFIG names, by Helm: see README.md, "Any cluster".'
[ "$(id -u)" = 0 ] || die "the demo makes a cluster of its own and needs root for it (network namespaces, mounts). $elsewhere"
grep -qsE '^ID(_LIKE)?=.*debian' /etc/os-release || die "the demo's own cluster is tried on Debian only. $elsewhere"

lock demo
number=0
# step TEXT COMMAND…: one line with the time it took; on failure the end of its output and where the rest is.
step() {
	local text=$1 begun=$SECONDS log
	shift
	number=$((number + 1))
	log=$logs/demo-$(printf '%02d' $number).log
	printf '%-62s' "$text"
	if "$@" > "$log" 2>&1 < /dev/null; then
		printf '%5d s\n' $((SECONDS - begun))
	else
		printf ' failed\n\n'
		tail -n 40 "$log" >&2
		die "step \"$text\" failed after $((SECONDS - begun)) s; its whole output is in $log"
	fi
}

images() { "$here/images.sh" postgres && "$here/images.sh" parts; }
# Of the whole workspace, as everything here is built: else features differ, and dependencies are compiled twice.
build_binary() { (cd "$checkout" && cargo build --locked --workspace --profile "$profile" --bin maintenance-os); }
app_image() {
	local directory=$profile
	[ "$profile" != dev ] || directory=debug
	"$here/images.sh" app "$CARGO_TARGET_DIR/$directory/maintenance-os" > "$cluster/app-image"
}
install_chart() {
	local image
	image=$(cat "$cluster/app-image")
	kubectl apply --server-side --force-conflicts -f "$checkout/crds"
	kubectl wait --for=condition=Established --timeout=60s -f "$checkout/crds"
	# Also what somebody, or a test that was killed, has changed by hand.
	helm upgrade --install maintenance-os "$checkout/charts/maintenance-os" --namespace maintenance-os --skip-crds \
		--values "$checkout/e2e/demo/values.yaml" --set-string "image.repository=${image%:*},image.tag=${image##*:}" \
		--force-conflicts --timeout 3m || { state; return 1; }
	# The app is not waited for here: it is ready once there is something to route, which the samples bring.
	kubectl -n maintenance-os rollout status deployment/maintenance-os-operator --timeout=120s || { state; return 1; }
}
samples() {
	kubectl apply -f "$checkout/manifests/samples/plans.yaml" -f "$checkout/manifests/samples/databaseserver.yaml"
	kubectl wait --for=condition=Ready --timeout=180s databaseserver/pg-demo-1 || { state; return 1; }
	kubectl apply -f "$checkout/manifests/samples/tenants.yaml"
	kubectl wait --for=condition=Ready --timeout=180s -f "$checkout/manifests/samples/tenants.yaml" || { state; return 1; }
	kubectl -n maintenance-os rollout status deployment/maintenance-os-app --timeout=120s || { state; return 1; }
	kubectl -n maintenance-os rollout status deployment/maintenance-os-worker --timeout=120s || { state; return 1; }
	kubectl -n maintenance-os rollout status deployment/maintenance-os-billing --timeout=120s || { state; return 1; }
	kubectl -n maintenance-os rollout status deployment/maintenance-os-portal --timeout=120s || { state; return 1; }
}
hosts() { kubectl get tenants -n customers -o jsonpath='{range .items[*]}{.status.primaryHost}{"\n"}{end}'; }
# Each answer is read from the tenant's own database.
hosts_answer() {
	local host
	for host in $(hosts); do
		until_true 30 "$host answers" curl -fsS -m 5 -H "Host: $host" "$entry/api/tenant" || { state; return 1; }
	done
}
# welcome_links: one line a tenant: what opens its first page, once.
welcome_links() {
	local name
	for name in $(kubectl get tenants -n customers -o jsonpath='{.items[*].metadata.name}'); do
		printf '  %-10s %s\n' "$name" "$(kubectl get secret "$name-welcome" -n customers -o jsonpath='{.data.link}' | base64 -d)"
	done
}
# state: what one looks at when something is wrong.
state() {
	kubectl get nodes,pods -A -o wide || true
	kubectl get databaseservers,plans,tenants -A -o wide || true
	kubectl get events -A --sort-by=.lastTimestamp | tail -n 30 || true
	local pod
	for pod in $(kubectl -n maintenance-os get pods -o name); do
		echo "--- $pod"
		kubectl -n maintenance-os logs "$pod" --all-containers --tail=30 || true
	done
}

step "Debian packages" "$here/packages.sh"
step "cluster programs (Kubernetes, containerd, CoreDNS, Helm, Traefik)" "$here/build.sh"
step "root file system (PostgreSQL 17, PgBouncer, Redis 8)" "$here/rootfs.sh"
step "maintenance-os, by cargo ($profile)" build_binary
step "Kubernetes cluster" "$here/up.sh"
step "images of PostgreSQL, Redis, S3, mail servers and Traefik" images
step "PostgreSQL server pg-demo-1" "$checkout/e2e/demo/postgresql.sh"
step "Redis, S3 and mail servers" "$checkout/e2e/demo/parts.sh"
step "Traefik, and a name server for customers' domains" "$checkout/e2e/demo/edge.sh"
step "image of maintenance-os" app_image
step "chart: operator and app" install_chart
step "samples: 3 plans, 1 server, 5 tenants" samples
step "every host answers" hosts_answer
printf '%-62s%5d s\n' "in all" $((SECONDS - started))

cat <<TEXT

The tenants, each with a database of its own:

$(kubectl get tenants -n customers)

Whoever opens a tenant's link first becomes its administrator:

$(welcome_links)

The admin portal, for those who run all this; its first sign-in sets a password and a second factor:

  https://admin.$domain:30443   admin@maintenance-os.com   $(cat "$cluster/demo/portal.password")

In a browser of this machine: add this line to /etc/hosts
  $inside_address admin.$domain $(hosts | tr '\n' ' ')
or have Chromium do without (as root also --no-sandbox):
  chromium --user-data-dir="\$(mktemp -d)" --host-resolver-rules='MAP *.$domain $inside_address' 'LINK'

Next:
  export KUBECONFIG=$KUBECONFIG PATH=$bin:\$PATH
  curl -H 'Host: acme.$domain' $entry/api/tenant                      # the same for programs
  kubectl logs -n platform deploy/mail | perl -MMIME::QuotedPrint -pe '\$_ = decode_qp(\$_)'   # the mails that were sent
  echo '
  apiVersion: tenancy.maintenance-os.com/v1alpha1
  kind: Tenant
  metadata: { name: wonka, namespace: customers }
  spec: { displayName: "Wonka Mixing Works", planRef: { name: pro } }
  ' | kubectl apply -f -                                # then: kubectl get tenants -n customers -o wide --watch
  kubectl delete tenant wonka -n customers              # its data is kept: adopt it with spec.uuid

make demo-down stops and removes all of it.
TEXT
