#!/usr/bin/env bash
# A name server in which the demo's customers have their domains, outside the cluster: any name, none there at first.
#   dns.sh start|stop
#   dns.sh txt NAME VALUE    adds a TXT record
#   dns.sh forget NAME       takes all records of a name away
# The operator asks it for the proofs of customers' own hosts. It is seen within a second.
source "$(dirname "$0")/../cluster/lib.sh"
dir=$cluster/dns
port=5353

write() { # adds the head, with a number that grows, to the records
	printf '$TTL 1\n@ IN SOA ns hostmaster %s 1 1 1 1\n@ IN NS ns\nns IN A %s\n' "$(date +%s%N | cut -c5-13)" "$outside_address" |
		cat - "$dir/records" > "$dir/zone.new"
	mv "$dir/zone.new" "$dir/zone"
}
start() {
	need_root
	is_running "$dir/pid" "$bin/coredns" && return
	mkdir -p "$dir"
	touch "$dir/records"
	write
	printf '.:%s {\n bind %s\n file %s . {\n  reload 500ms\n }\n}\n' "$port" "$outside_address" "$dir/zone" > "$dir/Corefile"
	setsid "$bin/coredns" -conf "$dir/Corefile" > "$logs/dns.log" 2>&1 < /dev/null 9>&- &
	echo $! > "$dir/pid"
	until_true 10 "the name server listens" bash -c "ss -Hlun 'sport = :$port' | grep -q $outside_address"
}

case ${1:-} in
	start) start ;;
	stop) stop_by_pidfile "$dir/pid" "$bin/coredns" ;;
	txt) echo "${2:?usage: dns.sh txt NAME VALUE}. IN TXT \"${3:?usage: dns.sh txt NAME VALUE}\"" >> "$dir/records"; write ;;
	forget) grep -vF "${2:?usage: dns.sh forget NAME}. IN" "$dir/records" > "$dir/records.new" || true; mv "$dir/records.new" "$dir/records"; write ;;
	*) die "usage: $0 start|stop|txt NAME VALUE|forget NAME" ;;
esac
