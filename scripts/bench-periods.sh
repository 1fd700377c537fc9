#!/bin/sh
# The trial behind the default of --periods: time and perplexity when int8's loss, and int4's, is visited on every step, or more
# rarely.
#
#   scripts/bench-periods.sh [MODEL CALIB TEXT]     default: the demo model and its texts
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

printf '| periods of 8, 4, 2 bits | seed | seconds | int8 | int4 | int2 |\n|---|---|---|---|---|---|\n'
for seed in 0 1 2; do
    for periods in 1,1,1 4,1,1 8,1,1 8,2,1 8,4,1; do
        "$matquant" quantize "$model" -o "$work/master" --force --no-refit --gemm openblas --calib "$calib" \
            --group-size 64 --samples 64 --seq-len 256 --seed $seed --periods $periods --json >"$work/run.json" 2>/dev/null
        row="| $periods | $seed | $(printf '%.1f' "$(number seconds "$work/run.json")")"
        for width in 8 4 2; do
            "$matquant" eval "$work/master" --bits $width --text "$text" --seq-len 256 --json \
                >"$work/eval.json" 2>/dev/null
            row="$row | $(printf '%.3f' "$(number perplexity "$work/eval.json")")"
        done
        echo "$row |"
    done
done
