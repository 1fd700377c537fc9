#!/bin/sh
# The trade-off between the widths: masters that differ in --lambda alone, and what each makes of 8, 4 and 2 bits: perplexity,
# and KL from full precision in nats a token. Prints a table, the curve that the presets of `quantize --preset` are points of.
#
#   scripts/bench-tradeoff.sh --model NAME=FOLDER --calib FILE --text FILE [--lambdas "100,10,1 balanced ..."] [--work DIR]
#                             [--blocks N] [--refit yes] [--settings "--group-size 64 ..."] [--windows N] [--seq-len N]
#                             [--results FILE]
#
# --lambdas are weights for 8,4,2 bits or names of presets. --blocks: only the first N blocks are quantized, 6 by default, so
# that a master takes two to three minutes on two cores with SmolLM2-135M: enough to compare, not to say how good they are;
# 0: all. --refit yes: with the end-to-end refit, which takes as long again (default: no).
# TEXT should be text of its own, not that of the evaluation, since presets are chosen by this; "last:N" are the last N
# documents of CALIB, a .jsonl.gz, which are then not learned from. --settings are further options of `matquant quantize`.
# Measurements are kept in the work folder as JSON, one file each; what is there already is not measured again. Without
# --results the table goes to standard output only.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
model='' calib='' text='' results=''
work="$here/build/bench-tradeoff"
lambdas='100,10,1 wide 20,4,1 balanced 5,2,1 narrow 1,1,1 1,2,4'
presets='balanced narrow wide'
blocks=6 refit=no
settings='--group-size 64 --samples 64 --seq-len 512 --epochs 4'
windows=24 seq_len=512

. "$here/scripts/bench-lib.sh"
read_options 'model calib text work lambdas blocks refit settings windows seq_len results' "$@"
split_model
case $refit in
yes) parts=whole recipe='' ;;
no) parts=blocks recipe=--no-refit ;;
*) usage ;;
esac
matquant=${MATQUANT:-$here/build/release/matquant}
mkdir -p "$work"
keep_back "$work"

# Regular expressions and lists of files are split into words on purpose; no file names are meant.
set -f
if [ "$blocks" -gt 0 ]; then
    # 6: ^model\.layers\.(0|1|2|3|4|5)\.
    numbers=$(awk -v count="$blocks" 'BEGIN { for (i = 0; i < count; i++) printf "%s%d", i ? "|" : "", i }')
    settings="$settings --include ^model\.layers\.($numbers)\."
fi

# What a preset stands for in this matquant: measurements are kept by weights, which do not change, and not by names.
weights_of() {
    # shellcheck disable=SC2086
    would=$("$matquant" quantize "$folder" -o "$work/none" --calib "$calib" $settings --preset "$1" --dry-run -q --json)
    printf '%s' "$would" |
        python3 -c 'import json, sys; print(",".join("%g" % width["lambda"] for width in json.load(sys.stdin)["widths"]))'
}
named=''
for preset in $presets; do
    named="$named $preset=$(weights_of "$preset")"
done

prefix=$name-$parts$blocks weights=''
for lambda in $lambdas; do
    case $lambda in
    *,*) ;;
    *)
        case "$named " in
        *" $lambda="*) ;;
        *) echo "$0: no preset is called $lambda" >&2 && exit 2 ;;
        esac
        lambda=${named#*" $lambda="} lambda=${lambda%% *}
        ;;
    esac
    weights="$weights $lambda"
    master=$prefix-$lambda
    # shellcheck disable=SC2086
    make_master "$master" --calib "$calib" $settings $recipe --lambda "$lambda"
    evaluate_widths "$master" '8 4 2' --reference "$folder"
done
# shellcheck disable=SC2086
python3 "$here/scripts/bench_tradeoff_table.py" "$work" "$prefix" "$matquant" "$results" "$named" $weights
