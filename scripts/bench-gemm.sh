#!/bin/sh
# What --gemm onednn-bf16 does to speed and quality: the rates of a block's products in both types, and a model quantized by
# either backend with three seeds, as perplexity and as KL from full precision. Prints a table.
#
#   scripts/bench-gemm.sh [--model NAME=FOLDER --calib FILE --text FILE] [--settings "--group-size 64 ..."] [--seeds "0 1 2"]
#                         [--windows N] [--seq-len N] [--block yes] [--work DIR] [--results FILE]
#
# Without --model the demo model, as in scripts/demo.sh. --settings are options of `matquant quantize`. --block yes: the rates
# of a block's products as well. "last:N" as TEXT: the last N documents of CALIB, which are then not learned from.
# Measurements are kept in the work folder as JSON, one file each; what is there already is not measured again. Needs a build
# of everything (cmake --build --preset release; BUILD: where), oneDNN in it and a processor with its instructions. Without
# --results the table goes to standard output only.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
model=demo=$here/data/demo-model calib=$here/data/demo-calib.jsonl.gz text=$here/data/demo-eval.txt results=''
work="$here/build/bench-gemm"
settings='--group-size 32 --samples 64 --seq-len 256 --no-refit'
seeds='0 1 2' block=no windows=32 seq_len=256

. "$here/scripts/bench-lib.sh"
read_options 'model calib text work settings seeds windows seq_len block results' "$@"
split_model
build=${BUILD:-$here/build/release}
matquant=$build/matquant
mkdir -p "$work"
keep_back "$work"
export OMP_WAIT_POLICY=passive # threads that wait sleep: processor time is work

for seed in $seeds; do
    for gemm in openblas onednn-bf16; do
        made=$name-$gemm-$seed
        if [ ! -s "$work/$made-w2.json" ] && [ ! -d "$work/$made" ]; then
            rm -f "$work/$made.json" # a master that an interrupted run did not measure
        fi
        # Split into words on purpose.
        # shellcheck disable=SC2086
        make_master "$made" --calib "$calib" $settings --seed "$seed" --gemm $gemm
        evaluate_widths "$made" '8 4 2' --reference "$folder"
        rm -rf "${work:?}/$made"
    done
done
if [ "$block" = yes ] && [ ! -s "$work/block" ]; then
    "$build/tests/bench/bench_block" 0 10 cpu >"$work/block.part"
    mv "$work/block.part" "$work/block"
fi
python3 "$here/scripts/bench_gemm_table.py" "$work" "$name" "$matquant" "$results" "$settings" "$seeds" "$block"
