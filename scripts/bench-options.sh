#!/bin/sh
# What options of `matquant quantize` are worth: a master for each set of options, and how far its widths are from full
# precision (KL in nats a token) and their perplexity, on a text that it did not learn from. Prints a table.
#
#   scripts/bench-options.sh MODEL CALIB TEXT "OPTIONS" ["OPTIONS"...]
#   WIDTHS="8 4 2" WINDOWS=24 COMMON="--group-size 64 --no-refit --include '^model\.layers\.[0-5]\.'" (the defaults)
#
# COMMON are options of all sets. By default only six blocks are quantized, so that a set takes two to three minutes on two
# cores with SmolLM2-135M: enough to compare settings, not to say how good they are. TEXT is text of its own, never that of
# the evaluation, since options are chosen by this; "last:N" are the last N documents of CALIB, a .jsonl.gz, which are then
# not learned from.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$here/scripts/bench-lib.sh"
[ $# -ge 4 ] || usage "$@"
matquant=${MATQUANT:-$here/build/release/matquant}
model=$1 calib=$2 text=$3
shift 3
widths=${WIDTHS:-8 4 2} windows=${WINDOWS:-24}
common=${COMMON:-"--group-size 64 --no-refit --include ^model\.layers\.[0-5]\."}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
field='import json, sys; r = json.load(sys.stdin); print("%.4f (%.2f)" % (r["kl"], r["perplexity"]))'

keep_back "$work"

printf '| options | seconds |'
for width in $widths; do printf ' int%s: KL (perplexity) |' "$width"; done
printf '\n|---|---|'
for width in $widths; do printf -- '---|'; done
printf '\n'
for options in "$@"; do
    set -f
    # Split into words on purpose; no file names are meant.
    # shellcheck disable=SC2086
    seconds=$("$matquant" quantize "$model" -o "$work/master" --force --calib "$calib" $common $options --quiet --json |
        python3 -c 'import json, sys; print(round(json.load(sys.stdin)["seconds"]))')
    set +f
    # shellcheck disable=SC2016 # no command is meant
    printf '| `%s` | %s |' "$options" "$seconds"
    for width in $widths; do
        value=$("$matquant" eval "$work/master" --bits "$width" --text "$text" --seq-len 512 --windows "$windows" \
            --reference "$model" --quiet --json | python3 -c "$field")
        printf ' %s |' "$value"
    done
    printf '\n'
done
