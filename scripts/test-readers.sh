#!/bin/sh
# Do the programs that slices are written for compute what matquant computes? Cuts slices of masters in every format,
# loads them with their own readers on the CPU, and compares logits, perplexity and 32 greedily generated tokens;
# test_readers.py says how, and within which bounds and why.
#
#   scripts/test-readers.sh [MASTER...]
#   scripts/test-readers.sh --install    # the readers alone, which needs no build; prints where their Python is
#
# Without MASTER, four of the demo model, by recipe rtn: as it comes; with symmetric zero points; with nested embeddings;
# and with a head of its own, embeddings and head of 8 bits. The last three are tried at fewer widths (EXTRA_BITS, 8,4,2), the
# symmetric one also with layers of 2 and 8 bits.
# And two of a model with random weights and rows of 256 in one group, which GGUF holds in K-quants: 6 to 2 bits (6 and 3
# fitted), and with symmetric zero points 6 and 3 exactly. And a Gemma 3 with random weights, whose windows are shorter than
# the texts, the same in a model with images, and small Qwen 2, Qwen 3, Mistral, SmolLM3, Gemma 2, Granite, OLMo 2,
# Phi-3 and Phi-4-mini models and a Llama with dynamic rotary scaling, of random weights, at 8 and 4 (FAMILY_BITS).
#
# READERS     what is tried (default: safetensors mlx gguf compressed-tensors gptq)
# BITS        the widths (default: 8,7,6,5,4,3,2); one that a format has not is refused by slice, which is a row, too
# TEXT        what is measured on (default: data/demo-eval.txt), in WINDOWS windows (4) of TOKENS tokens (256; 32 or more)
# RESULTS     a Markdown file (tests/bench/READERS.md) whose tables are written anew, for the masters of this run
# ROWS        a file that keeps the rows, so that several runs (say, with fewer TOKENS for a slow reader) make one section
# BUILD       the build (default: build/release)
# LIMIT       seconds after which no reader begins with another slice; those left are named, and no failure (default: none)
# SLICE_LIMIT seconds that a slice may take with a reader; to take longer is a failure (default: none)
#
# The readers come from the Python package index, once, into ~/.cache/matquant/readers-venv, where .ci/run has them, too
# (XDG_CACHE_HOME: another ~/.cache; MATQUANT_READERS_VENV: another place); llama-cpp-python is compiled with OpenBLAS, in a
# few minutes. MATQUANT_TORCH is what pip is given for PyTorch (default: torch==2.13.0), to name its CPU build where that
# takes more. SETUP_LIMIT (default: 15m) bounds that.
#
# Prints a line for each comparison. Ends with 0; with 1 if one is out of its bounds or could not be made, also when this is told
# to end; with 77 and "skipped: ..." if the readers could not be installed.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
build=${BUILD:-$root/build/release}
venv=${MATQUANT_READERS_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/matquant/readers-venv}
export OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-$(nproc)}" OMP_WAIT_POLICY=passive
export PYTHONFAULTHANDLER=1 # a reader that crashes says where

only_install=
[ "${1:-}" != --install ] || only_install=1
if [ -z "$only_install" ] && { [ ! -x "$build/matquant" ] || [ ! -x "$build/tests/tools/logits" ]; }; then
    echo "test-readers: build first (cmake --preset release && cmake --build --preset release)" >&2
    exit 2
fi

skip() {
    echo "skipped: $1"
    exit 77
}
# All there, of the list as it is now, and llama.cpp compiled with OpenBLAS.
found='import importlib.util as u, pathlib, sys
names = "torch transformers compressed_tensors gptqmodel mlx mlx_lm gguf llama_cpp"
there = all(map(u.find_spec, names.split())) and pathlib.Path(sys.prefix, "list").read_text() == open(sys.argv[1]).read()
sys.exit(not (there and list(pathlib.Path(u.find_spec("llama_cpp").origin).parent.glob("lib/libggml-blas*"))))'
# install PYTHON LIST TORCH...: torch before the packages that need it, else pip takes the build with CUDA, several GB; and
# llama-cpp-python without pip's cache, which may hold one compiled otherwise.
llama="-D GGML_BLAS=ON -D GGML_BLAS_VENDOR=OpenBLAS -D LLAMA_BUILD_EXAMPLES=OFF -D LLAMA_BUILD_TESTS=OFF -D LLAVA_BUILD=OFF"
# CMake's arguments are split at spaces; without this file llama.cpp only takes longer to compile.
case $root in
*' '*) ;;
*) llama="$llama -D CMAKE_PROJECT_llama_cpp_INCLUDE=$root/scripts/llama-without-common.cmake" ;;
esac
# shellcheck disable=SC2016 # a script of its own
install='python=$1 list=$2; shift 2
    pip() { "$python" -m pip install --quiet --retries 1 "$@"; }
    pip "$@" && pip --no-cache-dir --force-reinstall --no-deps "$(grep ^llama-cpp-python "$list")" && pip -r "$list" "$@"'
list=$root/scripts/requirements-readers.txt
if ! "$venv/bin/python" -c "$found" "$list" 2>/dev/null; then
    # shellcheck source=scripts/venv-lib.sh
    . "$root/scripts/venv-lib.sh"
    why=$(make_venv "$venv") || skip "$why"
    # In the background, so that who ends this script ends the installing, too: timeout passes it on to all of it.
    # shellcheck disable=SC2086 # the last may be several words
    CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) CMAKE_ARGS="${CMAKE_ARGS:-$llama}" timeout "${SETUP_LIMIT:-15m}" sh -c "$install" \
        sh "$venv/bin/python" "$list" ${MATQUANT_TORCH:-torch==2.13.0} >&2 &
    installing=$!
    trap 'kill $installing; exit 143' HUP INT TERM
    wait $installing ||
        skip "the readers could not be installed from the Python package index within ${SETUP_LIMIT:-15m}"
    trap - HUP INT TERM
    cp "$list" "$venv/list"
fi
if [ -n "$only_install" ]; then
    echo "$venv/bin/python"
    exit
fi

until=${LIMIT:+$(($(date +%s) + LIMIT))}
work=$(mktemp -d "${TMPDIR:-/tmp}/test-readers.XXXXXX")
trap 'rm -rf "$work"' EXIT
# where: what test_readers.py has begun to read and not come to the end of.
where() {
    [ ! -e "$work/reading" ] || printf ' in %s' "$(cat "$work/reading")"
}
trap 'echo "test-readers: told to end$(where)"; exit 1' HUP INT TERM

# quantize MODEL NAME GROUP_SIZE OPTION...: a master of that name.
quantize() {
    model=$1 name=$2 size=$3
    shift 3
    "$build/matquant" quantize "$model" -o "$work/$name" --recipe rtn --group-size "$size" --quiet "$@" >/dev/null
}

bits=${BITS:-8,7,6,5,4,3,2}
if [ $# -eq 0 ]; then
    demo=$root/data/demo-model few=${EXTRA_BITS:-8,4,2}
    "$venv/bin/python" -c 'import sys; sys.path.insert(0, sys.argv[1]); import readers_files as r; r.untie(*sys.argv[2:])' \
        "$root/scripts" "$demo" "$work/untied"
    families='images qwen2 qwen3 mistral smollm3 gemma2 granite olmo2 phi3 phi4-mini dynamic'
    for kind in wide gemma $families; do
        "$venv/bin/python" "$root/tests/tools/make_random_model.py" "$kind" "$demo" "$work/$kind"
    done
    quantize "$demo" demo-model 32
    quantize "$demo" demo-symmetric 32 --zero-point symmetric
    quantize "$demo" demo-embeddings 32 --embeddings nested
    quantize "$work/untied" demo-own-head 32 --embeddings 8 --zero-point symmetric
    quantize "$work/wide" wide-rows 0
    quantize "$work/wide" wide-rows-symmetric 0 --zero-point symmetric
    quantize "$work/gemma" short-windows 32
    for kind in $families; do
        quantize "$work/$kind" random-"$kind" 32
    done
    set -- "$work/demo-model" "$bits" "$work/demo-symmetric" "$few,2+self_attn=8" "$work/demo-embeddings" "$few" \
        "$work/demo-own-head" "$few" "$work/wide-rows" 6,5,4,3,2 "$work/wide-rows-symmetric" 6,3 \
        "$work/short-windows" 8,4
    for kind in $families; do
        set -- "$@" "$work/random-$kind" "${FAMILY_BITS:-8,4}"
    done
else
    for master; do # each with its widths
        set -- "$@" "$master" "$bits"
        shift
    done
fi

failed=0
for reader in ${READERS:-safetensors mlx gguf compressed-tensors gptq}; do
    rm -f "$work/reading"
    "$venv/bin/python" "$root/scripts/test_readers.py" "$reader" "$@" --build "$build" --work "$work" \
        --text "${TEXT:-$root/data/demo-eval.txt}" --rows "${ROWS:-$work/rows}" \
        --windows "${WINDOWS:-4}" --tokens "${TOKENS:-256}" --until "${until:-inf}" \
        --slice-limit "${SLICE_LIMIT:-0}" 2>"$work/log" || {
        echo "test-readers: $reader ended with $?$(where); its last words:"
        failed=1
        tail -n 25 "$work/log"
    }
done
if [ -s "$work/left" ]; then
    echo "test-readers: $LIMIT seconds were over; slices not read: $(wc -l <"$work/left"), from $(head -n 1 "$work/left") on"
fi
if [ -n "${RESULTS:-}" ]; then
    "$venv/bin/python" "$root/scripts/readers_table.py" "${ROWS:-$work/rows}" "$RESULTS" \
        "$("$build/matquant" --version | head -n 1)"
fi
exit $failed
