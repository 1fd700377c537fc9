#!/bin/sh
# Lets clang's libFuzzer look for safetensors files that our reader goes wrong with, under the address and undefined behaviour
# sanitizers:
#
#   tests/fuzz/fuzz.sh [SECONDS] [CORPUS]
#
# It begins with the files of seeds/safetensors and those of CORPUS, a folder, into which it puts what it finds of interest
# (default: nothing is kept). SECONDS is 60 by default. A file that something goes wrong with is left in the current folder.
#
# Needs, beyond what scripts/setup.sh installs, Debian's packages clang, libomp-dev and libclang-rt-dev (where there is none of
# that name, what it holds comes with clang). Builds in build/fuzz.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
seconds=${1:-60}
own=$(mktemp -d)
trap 'rm -rf "$own"' EXIT
corpus=${2:-$own}
mkdir -p "$corpus"
(
    cd "$root"
    cmake --preset clang -B build/fuzz -D CMAKE_BUILD_TYPE=Debug -D MATQUANT_SANITIZE=ON -D MATQUANT_FUZZ=ON
    cmake --build build/fuzz --target fuzz_safetensors
)
"$root/build/fuzz/tests/fuzz/fuzz_safetensors" -max_len=4096 -max_total_time="$seconds" -print_final_stats=1 \
    "$corpus" "$root/tests/fuzz/seeds/safetensors"
