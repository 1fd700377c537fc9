#!/bin/sh
# Set-up, build, and the whole of matquant on the model in data/: one int8 checkpoint, its slices of 4 and 2 bits, and a
# table of what every width is worth, beside the same widths of a checkpoint made by rounding alone.
#
#   scripts/demo.sh [FOLDER]      results go to FOLDER, which must not exist (default: build/demo, made anew)
set -eu
out=build/demo
if [ $# -gt 0 ]; then
    [ ! -e "$1" ] || { echo "demo.sh: $1 exists" >&2; exit 2; }
    mkdir -p "$1"
    out=$(cd "$1" && pwd)
fi
cd "$(dirname "$0")/.."

model=data/demo-model
calib=data/demo-calib.jsonl.gz
text=data/demo-eval.txt
matquant=build/release/matquant
started=$(date +%s)

say() { printf '\n==> %s\n' "$*"; }

say "Set-up"
scripts/setup.sh

say "Build"
mkdir -p build
# All that cmake --install wants: the program and both libraries, without the tests.
products="matquant matquant_static matquant_shared"
# shellcheck disable=SC2086 # a list of words
{ cmake --preset release && cmake --build --preset release --target $products -j "$(nproc)"; } >build/demo-build.log 2>&1 || {
    cat build/demo-build.log
    exit 1
}

[ $# -gt 0 ] || rm -rf "$out"
mkdir -p "$out"

say "Quantize: $model, codes learned so that the top 4 and the top 2 bits are models too"
$matquant quantize $model -o "$out/master" --calib $calib --group-size 32 --samples 64 --seq-len 256 >"$out/quantize.txt"

say "Quantize by rounding alone, to compare with"
$matquant quantize $model -o "$out/rounded" --recipe rtn --group-size 32 >"$out/rounded.txt"

for bits in 4 2; do
    say "Slice: $bits bits"
    $matquant slice "$out/master" -o "$out/int$bits" --bits $bits
done

# measure NAME MODEL [OPTION...]: $out/NAME.json is what eval says of it.
measure() {
    name=$1
    shift
    $matquant eval "$@" --text $text --seq-len 256 --json >"$out/$name.json" 2>"$out/eval.log" || {
        cat "$out/eval.log" >&2
        exit 1
    }
}

# number KEY FILE: the first number of that name in a JSON file.
number() {
    tr ',{}' '\n\n\n' <"$2" |
        sed -n 's/^[[:space:]]*"'"$1"'":[[:space:]]*\([-+0-9.eE]*\).*/\1/p' | head -n 1
}

# bytes BITS: what a model of that width takes, as inspect says.
bytes() {
    tr -d ' \t\n' <"$out/inspect.json" | tr '{' '\n' | sed -n 's/^"bits":'"$1"',.*"bytes":\([0-9]*\).*/\1/p'
}

# row LABEL BYTES FILE ROUNDED: a line of the table.
row() {
    printf '%-20s %9s %11.2f %12s %10.4f %11s%%\n' "$1" "$2" "$(number perplexity "$3")" "$4" \
        "$(number kl "$3")" "$(awk "BEGIN { printf \"%.1f\", 100 * $(number top1_agreement "$3") }")"
}

say "Measure every width"
measure full $model --reference $model
for bits in 8 7 6 5 4 3 2; do
    measure width$bits "$out/master" --bits $bits --reference $model
    measure rounded$bits "$out/rounded" --bits $bits
done
for bits in 4 2; do
    measure int$bits "$out/int$bits" --reference $model
done

$matquant inspect "$out/master" --json >"$out/inspect.json"
$matquant inspect $model --json >"$out/model.json"

{
    printf '%-20s %9s %11s %12s %10s %12s\n' '' bytes perplexity 'by rounding' 'KL (nats)' 'same top 1'
    row 'full precision' "$(number bytes "$out/model.json")" "$out/full.json" ''
    for bits in 8 7 6 5 4 3 2; do
        row "int$bits of the master" "$(bytes $bits)" "$out/width$bits.json" \
            "$(printf '%.2f' "$(number perplexity "$out/rounded$bits.json")")"
        case $bits in
        4 | 2) row "int$bits, sliced" "$(stat -c %s "$out/int$bits/model.safetensors")" "$out/int$bits.json" '' ;;
        esac
    done
} >"$out/table.txt"

say "Perplexity on $text, divergence from the full-precision model ($(($(date +%s) - started)) seconds in all)"
cat "$out/table.txt"
