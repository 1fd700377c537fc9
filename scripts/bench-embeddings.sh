#!/bin/sh
# What `--embeddings keep|8|nested` costs and saves: a master of a model for each, how large its slices are on disk as MLX's
# folder and as GGUF's file, and their perplexity. Prints a table, which is the model's section in RESULTS.
#
#   scripts/bench-embeddings.sh --model NAME=FOLDER --text FILE [--recipe rtn] [--calib FILE] [--group-size N]
#                               [--min-bits N] [--settings "--epochs 2 ..."] [--windows N] [--seq-len N] [--work DIR]
#                               [--results FILE]
#
# --recipe: rtn by default, which takes a minute a model; best and paper need --calib. --min-bits: the least bits of nested
# embeddings. --settings are further options of `matquant quantize`. Measurements are kept in the work folder as JSON, one
# file each; what is there already is not measured again. RESULTS is tests/bench/RESULTS.md; an empty FILE: none.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
model='' calib='' text='' results="$here/tests/bench/RESULTS.md"
work="$here/build/bench-embeddings"
recipe=rtn settings='' min_bits=4 group_size=64
windows=8 seq_len=512

. "$here/scripts/bench-lib.sh"
read_options 'model calib text work recipe settings min_bits group_size windows seq_len results' "$@"
calibration=''
if [ "$recipe" = rtn ]; then
    calib=none # which it has no use for
else
    calibration="--calib $calib"
fi
split_model
matquant=${MATQUANT:-$here/build/release/matquant}
mkdir -p "$work"

prefix=$name-$recipe-g$group_size
evaluate "$name-full.json" "$folder"
for kind in keep 8 nested; do
    master=$prefix-$kind
    options="--embeddings $kind"
    [ $kind != nested ] || options="$options --embeddings-min-bits $min_bits"
    # Split into words on purpose: the path in $calibration may hold no spaces.
    # shellcheck disable=SC2086
    make_master "$master" --recipe "$recipe" --group-size "$group_size" $calibration $settings $options
    evaluate_widths "$master" '8 4 2'
    for width in 8 4 2; do
        for format in mlx gguf; do
            measure "$master-$format$width.json" "$matquant" slice "$work/$master" -o "$work/slice.$format" --force \
                --bits $width --format $format --json
            rm -rf "$work/slice.$format"
        done
    done
done
python3 "$here/scripts/bench_embeddings_table.py" "$work" "$name" "$prefix" "$folder" "$matquant" "$results"
