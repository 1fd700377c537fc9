#!/bin/sh
# matquant beside AutoRound (2, 4 and 8 bits, a run each) and GPTQ (llmcompressor, 4 bits): the same model, calibration
# tokens, group size and threads; time, memory and perplexity, the latter of all by `matquant eval`, and a table.
#
#   scripts/bench-peers.sh --calib FILE --text FILE [--model DIR] [--work DIR] [--runs "autoround-2 ..."] [--iters N]
#                          [--threads N] [--samples N] [--windows N] [--results FILE]
#
# Runs: full, matquant, blocks (matquant without its refit), rtn, autoround-8, autoround-4, autoround-2, gptq-4 (all,
# unless named). Each is a JSON file in the work folder; what is there already is not measured again. AutoRound's --iters
# is by default that at which it visits as many tokens as a block of ours does: 4 epochs of 64 sequences in batches of 4
# are 64 iterations.
# The peers are installed into build/peers-venv (MATQUANT_PEERS_VENV: another place) from the Python package index;
# MATQUANT_TORCH is what pip is given for PyTorch (default: torch==2.13.0), to name its CPU build where that takes more.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
build=${MATQUANT_BUILD:-$here/build/release}
venv=${MATQUANT_PEERS_VENV:-$here/build/peers-venv}
if [ ! -x "$build/matquant" ]; then
    echo "$0: $build is not built: cmake --preset release && cmake --build --preset release" >&2
    exit 2
fi
found='import importlib.util as u, sys; sys.exit(not (u.find_spec("auto_round") and u.find_spec("llmcompressor")))'
if ! "$venv/bin/python" -c "$found" 2>/dev/null; then
    [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
    # Before the packages that need it: else pip takes the build with CUDA, several GB.
    # shellcheck disable=SC2086  # a list of words
    "$venv/bin/python" -m pip install --quiet ${MATQUANT_TORCH:-torch==2.13.0}
    "$venv/bin/python" -m pip install --quiet -r "$here/scripts/requirements-peers.txt"
fi
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
exec python3 "$here/scripts/bench_peers.py" --root "$here" --build "$build" --python "$venv/bin/python" "$@"
