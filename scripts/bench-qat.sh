#!/bin/sh
# What training the codes end to end (quantize --qat) is worth before the same refit: KL from full precision on eight
# calibration sequences that nothing is trained on, of every width before and after it, and of 8, 4 and 2 bits after the refit
# that follows. Prints a table; nothing is written.
#
#   scripts/bench-qat.sh MODEL MASTER CALIB [TRIAL...]
#
# MASTER is one that was made without the refit (quantize --no-refit). A trial is SEQUENCES:RATE:REFIT, of 512 tokens; RATE
# "none" for the refit alone; behind them may stand :LAMBDA8:LAMBDA4:LAMBDA2:PAIRRATE. The default trials take about an hour
# on two idle cores with SmolLM2-135M.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
if [ $# -lt 3 ]; then
    sed -n '6,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
model=$1 master=$2 calib=$3
shift 3
[ $# -gt 0 ] || set -- 192:none:192 192:3e-4:192 192:1e-3:192 192:3e-3:192

echo "| lambda 8, 4, 2 | sequences | rate | codes moved | int8: KL before, after | int7 | int6 | int5 | int4 | int3 | int2 |" \
    "then refitted: int8 | int4 | int2 | seconds | MiB (predicted) |"
echo "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
for trial in "$@"; do
    # Split into its parts on purpose.
    # shellcheck disable=SC2046
    "$here/build/release/tests/bench/bench_qat" "$model" "$master" "$calib" $(echo "$trial" | tr ':' ' ') 2>/dev/null
done
