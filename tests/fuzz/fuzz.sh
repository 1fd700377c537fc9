#!/bin/sh
# Builds fuzz_safetensors with clang's libFuzzer and runs it: tests/fuzz/fuzz.sh [SECONDS] [CORPUS]
set -eu
cd "$(dirname "$0")/../.."
seconds=${1:-60}
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
corpus=${2:-$build/corpus}
mkdir -p "$corpus"
# Two files to begin with: nothing, and one tensor of two halves.
printf '\2\0\0\0\0\0\0\0{}' > "$corpus/empty"
printf '\70\0\0\0\0\0\0\0{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}  \1\2\3\4' > "$corpus/halves"
simd=
if [ "$(uname -m)" = x86_64 ]; then
    simd='-mavx2 -mfma -mf16c src/tensor/dtype_avx2.c'
fi
modules='libcjson libmd zlib'
# shellcheck disable=SC2046,SC2086
clang -g -O1 -std=c17 -D_GNU_SOURCE -Isrc -Iinclude $simd -fsanitize=fuzzer,address,undefined \
    $(pkg-config --cflags $modules) -o "$build/fuzz" tests/fuzz/fuzz_safetensors.c \
    src/base/*.c src/tensor/dtype.c src/tensor/safetensors_header.c src/tensor/safetensors_read.c \
    $(pkg-config --libs $modules) -lm
"$build/fuzz" -max_len=4096 -max_total_time="$seconds" -print_final_stats=1 "$corpus"
