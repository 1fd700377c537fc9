#!/bin/sh
# What the end-to-end refit gains with more text, more passes and other rates: its own measure, KL from full precision on
# eight calibration sequences that it is not trained on, before and after. Prints a table; nothing is written.
#
#   scripts/bench-refit.sh MODEL MASTER CALIB [TRIAL...]
#
# MASTER is one that was made without the refit (quantize --no-refit). A trial is WIDTH:SEQUENCES:EPOCHS:RATE:GEMM:BATCH,
# with RATE -1 for that of the width, GEMM float32 or bf16, and BATCH sequences a step. Every width has all of the sequences,
# where quantize gives those above 2 bits a part; "trained" are those that steps saw, each as often as they did. Seconds are without
# the teacher's pass; the shares of time that follow are with it. The default trials take about an hour on two cores with
# SmolLM2-135M. Needs a built tree (build/release, or MATQUANT_BUILD).
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$here/scripts/bench-lib.sh"
[ $# -ge 3 ] || usage "$@"
build=${MATQUANT_BUILD:-$here/build/release}
model=$1 master=$2 calib=$3
shift 3
[ $# -gt 0 ] || set -- 2:64:3:1e-3:float32:4 2:64:3:4e-3:float32:4 2:192:1:4e-3:float32:4 \
    4:96:1:2e-3:float32:4 4:96:1:7e-4:float32:4 4:96:1:3e-4:float32:4 8:32:1:1e-4:float32:4 \
    2:192:1:3e-3:bf16:4 2:192:1:3e-3:bf16:2 2:192:1:3e-3:bf16:1 2:192:1:1.5e-3:bf16:1 2:192:1:6e-3:bf16:1 \
    4:192:1:7.5e-4:bf16:4 4:192:1:7.5e-4:bf16:1 4:192:1:3.75e-4:bf16:1

echo "| bits | sequences | epochs | trained | rate | products | batch | KL before | KL after | seconds |" \
    "% of time: teacher, measuring, loading, head, blocks | MiB (predicted) |"
echo "|---|---|---|---|---|---|---|---|---|---|---|---|"
for trial in "$@"; do
    # Split into its parts on purpose.
    # shellcheck disable=SC2046
    "$build/tests/bench/bench_refit" "$model" "$master" "$calib" $(echo "$trial" | tr ':' ' ')
done
