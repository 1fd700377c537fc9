#!/bin/sh
# matquant beside AutoRound (2, 4 and 8 bits, a run each) and GPTQ (llmcompressor, 4 bits): the same model, calibration
# tokens, group size and threads; time, memory and perplexity, the latter of all by `matquant eval`, and a table.
#
#   scripts/bench-peers.sh --calib FILE --text FILE [--model DIR] [--title NAME] [--work DIR] [--runs "autoround-2 ..."]
#                          [--iters N] [--threads N] [--samples N] [--seq-len N] [--epochs N] [--windows N] [--results FILE]
#                          [--tax DIR]
#
# Runs: full, matquant, blocks (matquant without its refit), fast (matquant --fast), rtn, autoround-8, autoround-4,
# autoround-4-default, autoround-2, autoround-2-default, gptq-4 (all, unless named). Each is a JSON file in the work folder;
# what is there already is not measured again. AutoRound's --iters is by default that at which it visits as many tokens as a
# block of ours does: 4 epochs of 64 sequences in batches of 4 are 64 iterations; the runs -default have the 200 of
# AutoRound's own default. --model and --title: SmolLM2-135M-Instruct in models/smollm2, unless they say another.
# --tax: a work folder of bench-tax.sh, whose AutoRound and master in groups of 64 are the same runs: those that are there are
# taken from it, if it had the same --samples and no other --sequences and --settings.
# The peers' environment is made by what scripts/bench-lib.sh says of it.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$here/scripts/bench-lib.sh"
[ $# -gt 0 ] || usage
help_wanted "$@"
peers_environment "$here"
exec python3 "$here/scripts/bench_peers.py" --root "$here" --build "$build" --python "$python" "$@"
