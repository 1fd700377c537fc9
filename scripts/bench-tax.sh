#!/bin/sh
# What nesting costs: at 8, 4, 3 and 2 bits a slice of one master beside a model that matquant makes for that width alone
# (`--bits R`, the same recipe) and beside AutoRound's for that width alone, on the same calibration tokens, in the same
# groups: perplexity, and the mean accuracy of zero-shot tasks with its standard error.
#
#   scripts/bench-tax.sh --model NAME=FOLDER --calib FILE --text FILE [--tasks "FILE..."] [--work DIR]
#                        [--group-sizes "64 128 0"] [--runs "full master ours-2 autoround-2 ..."] [--master DIR]
#                        [--settings="--gemm ..."]
#                        [--samples N] [--seq-len N] [--epochs N] [--sequences N] [--iters N] [--threads N] [--windows N]
#                        [--max-items N] [--results FILE]
#
# Runs: full; and for each group size master, ours-8, ours-4, ours-3, ours-2, autoround-8 ... autoround-2: all, unless some
# are named. Every run and every measurement is a JSON file in the work folder; what is there is not made again, and what was
# never measured is left out of the table. Masters stay in the work folder; AutoRound's models, which are written in float32,
# do not: name the tasks from the start.
#
# --group-sizes: 0 is one group a row. Layers whose rows a group size does not divide have groups of 64 in all models.
# --master: a master that was made already (by bench-recipes.sh, say), taken for its group size; the table says of each model
# of ours what it was made with.
# --sequences: how many sequences of calibration tokens there are, for all (default: --samples, which is what matquant's
# blocks learn from). 544 are as many as recipe best has use for when its blocks learn from 64, since its refit wants text of
# its own. AutoRound gets all of them, and --iters such that it visits as many tokens in a block as matquant does.
# --settings are further options of `matquant quantize` for all models of ours. --max-items shortens the tasks, to try.
# AutoRound's environment is made by what scripts/bench-lib.sh says of it.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$here/scripts/bench-lib.sh"
[ $# -gt 0 ] || usage
help_wanted "$@"
peers_environment "$here"
exec python3 "$here/scripts/bench_tax.py" --root "$here" --build "$build" --python "$python" "$@"
