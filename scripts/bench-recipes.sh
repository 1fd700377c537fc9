#!/bin/sh
# Measures all recipes on real models: quantizes each, evaluates every width without slicing, and writes the table.
#
#   scripts/bench-recipes.sh --calib FILE --text FILE [--work DIR] [--models "NAME=FOLDER ..."] [--recipes "best ..."]
#                            [--label LABEL] [--settings "--samples 64 ..."] [--windows N] [--seq-len N]
#                            [--tasks "FILE..." [--max-items N]] [--results FILE]
#
# --settings are further options of `matquant quantize` for the masters that are still to be made; the table says of each
# row what it was made with. Recipe "blocks" is best without the end-to-end refit.
# --label: letters, digits, ".", "_" and "+". The masters of this run are rows of their own, NAME-RECIPE@LABEL in the work
# folder, beside those of other labels and of none, and the table says when, where and by what program each label was made.
# --tasks: zero-shot accuracy of full precision and of 8, 4, 3 and 2 bits, in a second table; --max-items: of each task.
# Models are made by scripts/get-model.sh. Measurements are kept in the work folder as JSON, one file each; what is there
# already is not measured again, so that an interrupted bench goes on where it stopped, and the table has all that the folder
# has. RESULTS is tests/bench/RESULTS.md; an empty FILE: none. A row that stands between the section's markers there and is not
# of the work folder is not thrown away: the script then prints the section and says what to move.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
calib='' text='' label='' tasks='' max_items='' work="$here/build/bench-recipes" results="$here/tests/bench/RESULTS.md"
models="smollm2=$here/models/smollm2 gemma3=$here/models/gemma3"
recipes='best blocks paper rtn'
widths='8 7 6 5 4 3 2' widths_on_tasks='8 4 3 2'
settings='--samples 64 --seq-len 512 --epochs 4'
windows=32 seq_len=1024

. "$here/scripts/bench-lib.sh"
read_options 'calib text work models recipes label settings windows seq_len tasks max_items results' "$@"
if [ -z "$calib" ] || [ -z "$text" ]; then
    echo "$0: --calib and --text are needed" >&2
    exit 2
fi
case $label in
*[!A-Za-z0-9._+]*) usage ;;
esac

matquant=${MATQUANT:-$here/build/release/matquant}
mkdir -p "$work"

# on_tasks FILE FOLDER [OPTION...]: what eval says of it on the tasks
on_tasks() {
    output=$1
    shift
    # Split into words on purpose: the paths in $tasks may hold no spaces.
    # shellcheck disable=SC2086
    measure "$output" "$matquant" eval "$@" --tasks $tasks ${max_items:+--max-items "$max_items"} --json
}

for model in $models; do
    name=${model%%=*} folder=${model#*=}
    evaluate "$name-full.json" "$folder"
    [ -z "$tasks" ] || on_tasks "$name-full-tasks.json" "$folder"
    for recipe in $recipes; do
        master=$name-$recipe${label:+@$label}
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
        for width in ${tasks:+$widths_on_tasks}; do
            on_tasks "$master-w$width-tasks.json" "$work/$master" --bits "$width"
        done
    done
done

python3 "$here/scripts/bench_recipes_table.py" "$work" "$results"
