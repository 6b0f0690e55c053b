#!/usr/bin/env bash
# An S3 server with accounts on loopback, for tests that need no cluster: versitygw on a directory. Needs no root.
# Its data is thrown away on stop.
#   s3-local.sh start|stop|env|serve|halt
# start makes two accounts and the bucket "files", which belongs to the first one; the second one may not look into it. It also
# writes …/s3-local/env, to be sourced; env prints it. halt and serve stop and start the server alone, with its data kept.
# MOS_S3_NAME and MOS_S3_PORT start another one beside it.
source "$(dirname "$0")/lib.sh"

name=${MOS_S3_NAME:-s3-local}
port=${MOS_S3_PORT:-7417}
dir=$cache/$name
url=http://127.0.0.1:$port
region=us-east-1
bucket=files

running() { is_running "$dir/pid" "--iam-dir $dir/iam "; }
answers() { running && [ "$(curl -s -o /dev/null -w '%{http_code}' "$url/")" != 000 ]; }
secret() { [ -s "$dir/$1.secret" ] || (umask 077 && password > "$dir/$1.secret"); cat "$dir/$1.secret"; }
# The administrator's keys go by the environment: a command line can be read by everybody.
administer() {
	ADMIN_ACCESS_KEY_ID=administrator ADMIN_SECRET_ACCESS_KEY=$(secret administrator) ADMIN_ENDPOINT_URL=$url ADMIN_REGION=$region \
		"$bin/versitygw" admin "$@"
}

serve() {
	running && return
	[ -x "$bin/versitygw" ] || die "no $bin/versitygw: run $here/build.sh"
	ROOT_ACCESS_KEY=administrator ROOT_SECRET_KEY=$(secret administrator) setsid "$bin/versitygw" \
		--port "127.0.0.1:$port" --region "$region" --iam-dir "$dir/iam" --quiet posix "$dir/data" \
		> "$logs/$name.log" 2>&1 < /dev/null 9>&- &
	echo $! > "$dir/pid"
	until_true 20 "the S3 server answers" answers || { tail -n 20 "$logs/$name.log" >&2; die "versitygw did not start, see $logs/$name.log"; }
}

start() {
	if answers; then return; fi
	stop
	mkdir -p "$dir"/{data,iam}
	chmod 700 "$dir"
	serve
	for account in app other; do
		administer create-user --access "$account" --secret "$(secret "$account")" --role user > /dev/null
	done
	administer create-bucket --bucket "$bucket" --owner app > /dev/null
	(umask 077 && cat > "$dir/env") <<-ENV
		export MOS_TEST_S3_URL='$url'
		export MOS_TEST_S3_REGION='$region'
		export MOS_TEST_S3_BUCKET='$bucket'
		export MOS_TEST_S3_KEY='app'
		export MOS_TEST_S3_SECRET='$(secret app)'
		export MOS_TEST_S3_OTHER_KEY='other'
		export MOS_TEST_S3_OTHER_SECRET='$(secret other)'
		export MOS_TEST_S3_SERVER='$bin/versitygw'
		export MOS_TEST_S3_DATA='$dir/data'
	ENV
}

halt() { stop_by_pidfile "$dir/pid" "--iam-dir $dir/iam "; }
stop() {
	halt
	rm -rf "$dir/data" "$dir/iam" "$dir/env"
}

lock "$name"
case ${1:-} in
	start) start; say "S3 on $url, bucket $bucket; for the tests: source $dir/env" ;;
	stop | serve | halt) "$1" ;;
	env) [ -s "$dir/env" ] || die "not running: $0 start"; cat "$dir/env" ;;
	*) die "usage: $0 start|stop|env|serve|halt" ;;
esac
