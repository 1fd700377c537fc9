#!/bin/sh
# Measures all recipes on real models: quantizes each, evaluates every width without slicing, and writes the table.
#
#   scripts/bench-recipes.sh --calib FILE --text FILE [--work DIR] [--models "NAME=FOLDER ..."] [--recipes "best ..."]
#                            [--settings "--samples 64 ..."] [--windows N] [--results FILE]
#
# --settings are further options of `matquant quantize` for the masters that are still to be made; the table says of each
# row what it was made with.
# Recipe "blocks" is best without the end-to-end refit.
# Models are made by scripts/get-model.sh. Measurements are kept in the work folder as JSON, one file each; what is there
# already is not measured again, so that an interrupted bench goes on where it stopped.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
calib='' text='' work="$here/build/bench-recipes" results="$here/tests/bench/RESULTS.md"
models="smollm2=$here/models/smollm2 gemma3=$here/models/gemma3"
recipes='best blocks paper rtn'
widths='8 7 6 5 4 3 2'
settings='--samples 64 --seq-len 512 --epochs 4'
windows=32 seq_len=1024

. "$here/scripts/bench-lib.sh"
read_options 'calib text work models recipes settings windows results' "$@"
if [ -z "$calib" ] || [ -z "$text" ]; then
    echo "$0: --calib and --text are needed" >&2
    exit 2
fi

matquant=${MATQUANT:-$here/build/release/matquant}
mkdir -p "$work"

for model in $models; do
    name=${model%%=*} folder=${model#*=}
    evaluate "$name-full.json" "$folder"
    for recipe in $recipes; do
        master=$name-$recipe
        calibration="--calib $calib $settings"
        [ "$recipe" != rtn ] || calibration='' # nor settings: they are learning's
        case $recipe in
        blocks) options='best --no-refit' ;;
        *) options=$recipe ;;
        esac
        # Split into words on purpose: the path in $calibration may hold no spaces.
        # shellcheck disable=SC2086
        make_master "$master" --recipe $options --group-size 64 $calibration
        evaluate_widths "$master" "$widths"
    done
done

python3 "$here/scripts/bench_recipes_table.py" "$work" "$results" "$matquant"
