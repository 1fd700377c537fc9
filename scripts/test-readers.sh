#!/bin/sh
# Do the programs that slices are written for compute what matquant computes? Cuts slices of masters in every format, loads them
# with their own readers on the CPU, and compares logits, perplexity and greedily chosen tokens; test_readers.py
# says how, and within which bounds.
#
#   scripts/test-readers.sh [MASTER...]    (default: the demo model, and SmolLM2 and Gemma 3 where models/ has them,
#                                           quantized with recipe rtn)
#
# Needs network the first time: the readers come from the Python package index into build/readers-venv (MATQUANT_VENV
# names another place); llama-cpp-python is compiled, which takes about 10 minutes. BUILD names the build (default
# build/release), TEXT the text (default data/demo-eval.txt), READERS and BITS what is tried, WINDOWS how many windows of
# 256 tokens. Prints a line for each; ends with 1 if one is out of its bounds.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
build=${BUILD:-$root/build/release}
text=${TEXT:-$root/data/demo-eval.txt}
venv=${MATQUANT_VENV:-$root/build/readers-venv}

if [ ! -x "$build/matquant" ] || [ ! -x "$build/tests/tools/logits" ]; then
    echo "test-readers: build first (cmake --preset release && cmake --build --preset release)" >&2
    exit 1
fi
if [ ! -x "$venv/bin/python" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
fi
if [ -z "${MATQUANT_VENV:-}" ]; then
    "$venv/bin/python" -m pip install --quiet -r "$root/scripts/requirements-readers.txt"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/test-readers.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

if [ $# -eq 0 ]; then
    for model in "$root/data/demo-model" "$root/models/smollm2" "$root/models/gemma3"; do
        if [ -e "$model/model.safetensors" ]; then
            "$build/matquant" quantize "$model" -o "$work/$(basename "$model")" --recipe rtn --group-size 32 --quiet >/dev/null
            set -- "$@" "$work/$(basename "$model")"
        fi
    done
fi

failed=0
for master; do
    echo "$(basename "$master"):"
    for reader in ${READERS:-safetensors mlx gguf compressed-tensors gptq}; do
        for bits in ${BITS:-8 4 2}; do
            OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-2} "$venv/bin/python" "$root/scripts/test_readers.py" "$reader" "$master" \
                --build "$build" --work "$work" --text "$text" --bits "$bits" --windows "${WINDOWS:-8}" \
                2>"$work/log" || {
                failed=1
                tail -n 3 "$work/log"
            }
        done
    done
done
exit $failed
