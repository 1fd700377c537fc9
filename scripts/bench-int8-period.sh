#!/bin/sh
# The trial behind --int8-period's default: time and perplexity when int8's loss is visited on every step, or more rarely.
#
#   scripts/bench-int8-period.sh [MODEL CALIB TEXT]     default: the demo model and its texts
#
# Prints a table for tests/bench/RESULTS.md.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$here/scripts/bench-lib.sh"
[ $# -le 3 ] || usage
help_wanted "$@"
model=${1:-$here/data/demo-model}
calib=${2:-$here/data/demo-calib.jsonl.gz}
text=${3:-$here/data/demo-eval.txt}
matquant=${MATQUANT:-$here/build/release/matquant}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# number KEY FILE: the value of a member of a JSON object.
number() {
    python3 -c 'import json, sys; print(json.load(open(sys.argv[2]))[sys.argv[1]])' "$1" "$2"
}

printf '| int8 visited | seed | seconds | int8 | int4 | int2 |\n|---|---|---|---|---|---|\n'
for seed in 0 1 2; do
    for period in 1 2 4 8; do
        "$matquant" quantize "$model" -o "$work/master" --force --no-refit --gemm openblas --calib "$calib" \
            --group-size 64 --samples 64 --seq-len 256 --seed $seed --int8-period $period --json >"$work/run.json" 2>/dev/null
        row="| every ${period} step(s) | $seed | $(printf '%.1f' "$(number seconds "$work/run.json")")"
        for width in 8 4 2; do
            "$matquant" eval "$work/master" --bits $width --text "$text" --seq-len 256 --json \
                >"$work/eval.json" 2>/dev/null
            row="$row | $(printf '%.3f' "$(number perplexity "$work/eval.json")")"
        done
        echo "$row |"
    done
done
