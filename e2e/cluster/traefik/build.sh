#!/usr/bin/env bash
# Builds Traefik (Ingress and Gateway API) from its Go modules.
#   build.sh RELEASE DIRECTORY OUTPUT    DIRECTORY is for the work
# Its ACME DNS providers are left out: they pull in some two hundred cloud SDKs, and a test cluster needs none.
set -euo pipefail
release=$1 directory=$2 output=$3
json() { go mod download -json "$1" | sed -n "s/.*\"$2\": \"\(.*\)\",/\1/p"; }
rm -rf "$directory"
mkdir -p "$directory"
cp -r "$(dirname "$0")/ext" "$directory/ext"
cd "$directory"
traefik=$(cd / && json "github.com/traefik/traefik/v3@$release" Dir)
lego=$(cd / && json github.com/go-acme/lego/v5@v5.4.1 Dir)
cp -r "$lego" lego
chmod -R u+w lego
rm -rf lego/providers/dns/*/ lego/providers/dns/*_test.go
cat > lego/providers/dns/zz_gen_dns_providers.go <<'GO'
package dns

import (
	"fmt"

	"github.com/go-acme/lego/v5/challenge"
)

// NewDNSChallengeProviderByName knows no provider here.
func NewDNSChallengeProviderByName(name string) (challenge.Provider, error) {
	return nil, fmt.Errorf("unrecognized DNS provider: %s", name)
}
GO
{
	echo "module traefik"
	sed -n '/^go /,$p' "$traefik/go.mod" |
		sed -e 's#=> ./pkg/config/dynamic/ext#=> ./ext#' \
			-e 's#github.com/containous/go-http-auth v0.4.1-[0-9a-z.-]*#github.com/containous/go-http-auth v0.4.1-0.20200324110947-a37a7636d23e#'
	echo "require github.com/traefik/traefik/v3 $release"
	echo "replace github.com/go-acme/lego/v5 => ./lego"
} > go.mod
cp "$traefik/go.sum" go.sum
chmod u+w go.sum
CGO_ENABLED=0 go build -mod=mod -ldflags '-s -w' -o "$output" github.com/traefik/traefik/v3/cmd/traefik
cd /
rm -rf "$directory"
