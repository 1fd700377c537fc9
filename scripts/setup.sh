#!/bin/sh
# Installs what matquant is built and tested with, from Debian's (or Ubuntu's) packages. Does nothing, and needs no
# network, when all of it is there.
set -eu

packages="cmake ninja-build gcc g++ pkg-config libopenblas-dev libcjson-dev zlib1g-dev libpcre2-dev
    libutf8proc-dev libmd-dev libcmocka-dev libdnnl-dev python3 clang-format"

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

if ! command -v dpkg-query >/dev/null; then
    echo "setup.sh: this is not Debian or Ubuntu; install by its own means what these packages hold:" >&2
    echo "$packages" >&2
    exit 1
fi

missing=
for package in $packages; do
    installed "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "Installing:$missing"
as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo
export DEBIAN_FRONTEND=noninteractive
# The package lists of a fresh machine may be missing or old: they are fetched when the first attempt fails.
# shellcheck disable=SC2086 # $missing is a list
if ! $as_root apt-get install -y --no-install-recommends $missing >/dev/null 2>&1; then
    $as_root apt-get update
    $as_root apt-get install -y --no-install-recommends $missing
fi
