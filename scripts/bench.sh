#!/bin/sh
# How near the learning loop and the refit come to the bare BLAS, where the rest of the time goes, and how fast the other
# verbs are: all in one run, so that ratios compare like with like. Prints tables, and writes the numbers as JSON.
#
#   scripts/bench.sh [--shapes "demo smollm2 llama7b"] [--threads "1 2"] [--parts "learn refit memory files tokenizer"]
#                    [--repeats N] [--text FILE] [--out FILE] [--compare OLD.json] [--wait SECONDS] [--clock wall|cpu]
#                    [--gemm f32|bf16] [--work DIR] [--resume]
#
# Shapes: the demo model; SmolLM2-135M if scripts/get-model.sh made it (MATQUANT_SMOLLM2 names another folder); one block
# of Llama-2-7B's shape with random weights (12 GB of memory). --compare prints the ratios to an earlier run's numbers;
# --wait is how long to wait for others to leave the machine before each measurement, and --clock cpu times what runs in
# one thread, but for the refit, by the processor's time, which others disturb less; --gemm bf16 learns with oneDNN's
# products beside the bare oneDNN; --resume measures only the parts that are not in OUT yet. The tokenizers package is
# measured beside ours with the Python of the peers' environment, if scripts/bench-peers.sh has made it, or with python3.
# Needs a built tree (build/release, or MATQUANT_BUILD).
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$here/scripts/bench-lib.sh"
help_wanted "$@"
build=${MATQUANT_BUILD:-$here/build/release}
if [ ! -x "$build/matquant" ] || [ ! -x "$build/tests/bench/bench_learn" ]; then
    echo "$0: $build is not built: cmake --preset release && cmake --build --preset release" >&2
    exit 2
fi
# What is measured is the kernel and the cache sizes that the library itself chooses.
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
exec python3 "$here/scripts/bench_run.py" --root "$here" --build "$build" "$@"
