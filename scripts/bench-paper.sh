#!/bin/sh
# Makes the MatQuant paper's table (arXiv 2502.06786) on a model: log perplexity and zero-shot accuracy of int8, 4 and 2, and
# of int6 and 3, which no loss saw, for what the paper compares; of the feed-forward networks only, and of all linears.
#
#   scripts/bench-paper.sh --model NAME=FOLDER --calib FILE --text FILE [--tasks "FILE..."] [--max-items N] [--work DIR]
#                          [--scopes "ffn all"] [--rows "sliced matquant ..."] [--settings "--samples 64 ..."]
#                          [--windows N] [--seq-len N] [--results FILE]
#
# Rows: sliced (learned for int8 alone, and sliced), dedicated (a model for each width alone), matquant, single (only int2's
# loss), extra (extra precision), codistill (int2 also learns from int8's output), let (matquant with --let).
# --max-items: of each task. --settings are further options of `matquant quantize`. Measurements are kept in the work folder as
# JSON, one file each; what is there already is not measured again, so that an interrupted bench goes on where it stopped.
# Without --results the table goes to standard output.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
model='' calib='' text='' tasks='' max_items='' results=''
work="$here/build/bench-paper"
scopes='ffn all'
rows='sliced dedicated matquant single extra codistill let'
settings='--samples 64 --seq-len 512 --epochs 4 --group-size 64'
windows=32 seq_len=1024

. "$here/scripts/bench-lib.sh"
read_options 'model calib text tasks max_items work scopes rows settings windows seq_len results' "$@"
split_model

matquant=${MATQUANT:-$here/build/release/matquant}
mkdir -p "$work"

# All are measured on the text and, if there are any, the tasks.
on_tasks=${tasks:+--tasks $tasks ${max_items:+--max-items $max_items}}

# of_scope MASTER OPTION...: makes it of $scope
of_scope() {
    # Split into words on purpose.
    # shellcheck disable=SC2086
    make_master "$@" --recipe paper --scope "$scope" --calib "$calib" $settings
}

# Every width stands in --bits, since a width that does not gets scales and biases of its own by least squares, where the
# paper has one pair for all; int6 and int3 weigh nothing in the loss.
all='8,6,4,3,2'
# Split into words on purpose: the paths in $tasks may hold no spaces.
# shellcheck disable=SC2086
evaluate "$name-full.json" "$folder" $on_tasks
for scope in $scopes; do
    for row in $rows; do
        master=$name-$scope-$row
        case $row in
        sliced) of_scope "$master" --bits $all --lambda 1,0,0,0,0 ;;
        matquant) of_scope "$master" --bits $all --lambda 0.1,0,0.1,0,1 ;;
        single) of_scope "$master" --bits $all --lambda 0,0,0,0,1 ;;
        extra) of_scope "$master" --bits $all --lambda 0.1,0,0.1,0,1 --slice-rule round-extra ;;
        codistill) of_scope "$master" --bits "$all,8>2" --lambda 0.1,0,0.1,0,1,1 ;;
        let) of_scope "$master" --bits $all --lambda 0.1,0,0.1,0,1 --let ;;
        dedicated) ;;
        *)
            echo "$0: no row is called $row" >&2
            exit 2
            ;;
        esac
        for width in 8 4 2 6 3; do
            of=$master
            if [ "$row" = dedicated ]; then
                of=$master$width
                of_scope "$of" --bits $width
            fi
            # shellcheck disable=SC2086
            evaluate "$master-w$width.json" "$work/$of" --bits $width $on_tasks
        done
    done
done

python3 "$here/scripts/bench_paper_table.py" "$work" "$name" "$matquant" ${results:+"$results"}
