#!/bin/sh
# Installs what building and running Emerald takes from Debian, and nothing when
# it is there already. Needs root, or sudo.
# Usage: tools/install-deps.sh [PACKAGE…]   more packages, that some job takes
set -eu

packages="ca-certificates gcc libc6-dev libseccomp-dev make nftables pkg-config $*"
missing=""
for p in $packages; do
	dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0

sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
echo "installing from Debian:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -q
# shellcheck disable=SC2086 # a list of packages
$sudo apt-get install -q -y --no-install-recommends $missing
