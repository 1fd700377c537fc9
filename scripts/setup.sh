#!/bin/sh
# Installs what matquant is built and tested with, from Debian's (or Ubuntu's) packages. Does nothing, and needs no
# network, when all of it is there.
set -eu

packages="cmake ninja-build gcc g++ pkg-config libopenblas-dev libcjson-dev zlib1g-dev libpcre2-dev
    libutf8proc-dev libmd-dev libcmocka-dev python3 clang-format"
# matquant builds without these (README.md says what libdnnl-dev is for; a test makes a locale; scripts that need Python packages
# make virtual environments); not being able to install them is no error.
optional="libdnnl-dev locales python3-venv"

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

if ! command -v dpkg-query >/dev/null; then
    echo "setup.sh: this is not Debian or Ubuntu; install by its own means what these packages hold:" >&2
    echo "$packages $optional" >&2
    exit 1
fi

# missing_of PACKAGE...: those that are not installed.
missing_of() {
    for package in "$@"; do
        installed "$package" || printf ' %s' "$package"
    done
}

# shellcheck disable=SC2086 # lists
missing=$(missing_of $packages) missing_optional=$(missing_of $optional)
[ -n "$missing$missing_optional" ] || exit 0

echo "Installing:$missing$missing_optional"
as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo
export DEBIAN_FRONTEND=noninteractive
# The package lists of a fresh machine may be missing or old: they are fetched when the first attempt fails.
# shellcheck disable=SC2086 # $missing and $missing_optional are lists
$as_root apt-get install -y --no-install-recommends $missing $missing_optional >/dev/null 2>&1 && exit 0
$as_root apt-get update || [ -z "$missing" ]
# shellcheck disable=SC2086
[ -z "$missing" ] || $as_root apt-get install -y --no-install-recommends $missing
# shellcheck disable=SC2086
[ -z "$missing_optional" ] || $as_root apt-get install -y --no-install-recommends $missing_optional ||
    echo "setup.sh: without$missing_optional, which is optional" >&2
