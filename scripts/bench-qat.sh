#!/bin/sh
# What training the codes end to end (quantize --qat) is worth before the same refit: KL from full precision on eight
# calibration sequences that nothing is trained on, of every width before and after it, and of 8, 4 and 2 bits after the refit
# that follows. Prints a table; nothing is written.
#
#   scripts/bench-qat.sh MODEL MASTER CALIB [TRIAL...]
#
# MASTER is one that was made without the refit (quantize --no-refit). A trial is SEQUENCES:RATE:REFIT, of 512 tokens; RATE
# "none" for the refit alone; REFIT, the last of the sequences, are all given to every width, where quantize gives those
# above 2 bits a part; behind them may stand :LAMBDA8:LAMBDA4:LAMBDA2:PAIRRATE:GEMM, with PAIRRATE -1 for that of the width
# and GEMM bf16 or float32 (default: bf16, which needs a processor with its instructions). The default trials take about an
# hour on two idle cores with SmolLM2-135M. Needs a built tree (build/release, or MATQUANT_BUILD).
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$here/scripts/bench-lib.sh"
[ $# -ge 3 ] || usage "$@"
build=${MATQUANT_BUILD:-$here/build/release}
model=$1 master=$2 calib=$3
shift 3
[ $# -gt 0 ] || set -- 192:none:192 192:3e-4:192 192:1e-3:192 192:3e-3:192

echo "| lambda 8, 4, 2 | sequences | rate | products | codes moved | int8: KL before, after | int7 | int6 | int5 | int4 | int3 |" \
    "int2 | then refitted: int8 | int4 | int2 | sequences trained on: codes; refit of 8, 4, 2 | seconds | MiB (predicted) |"
echo "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
for trial in "$@"; do
    # Split into its parts on purpose.
    # shellcheck disable=SC2046
    "$build/tests/bench/bench_qat" "$model" "$master" "$calib" $(echo "$trial" | tr ':' ' ')
done
