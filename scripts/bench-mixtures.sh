#!/bin/sh
# What mixed widths are worth: a master at 2 bits with some blocks or some kinds of layers at 4 (eval --layer-bits), beside its
# uniform widths. Prints a table of mean bits a weight, KL from full precision in nats a token, and perplexity.
#
#   scripts/bench-mixtures.sh MASTER MODEL TEXT
#   WINDOWS=16 SEQ_LEN=1024 (the defaults)
#
# MODEL is what MASTER was made from. Eight blocks, or a quarter if there are fewer than 32, and half of all: the first, the
# last, and both ends. Kinds are those whose rows llama.cpp's types of 2 bits need not fit, and their complement.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$here/scripts/bench-lib.sh"
help_wanted "$@"
[ $# -eq 3 ] || usage "$@"
matquant=${MATQUANT:-$here/build/release/matquant}
master=$1 model=$2 text=$3

row='import json, sys
r = json.load(sys.stdin)
print("| %s | %.2f | %.4f | %.2f |" % (sys.argv[1], r["mean_bits"], r["kl"], r["perplexity"]))'

# row TITLE OPTION...
row() {
    title=$1
    shift
    "$matquant" eval "$master" "$@" --text "$text" --windows "${WINDOWS:-16}" --seq-len "${SEQ_LEN:-1024}" \
        --reference "$model" --quiet --json | python3 -c "$row" "$title"
}

# blocks TITLE NUMBERS: these of the blocks, by number, have 4 bits
blocks() {
    pattern=$(python3 -c 'import sys; print(r"\.layers\.(%s)\.=4" % "|".join(sys.argv[1].split()))' "$2")
    row "$1" --bits 2 --layer-bits "$pattern"
}

count=$(python3 -c 'import json, sys
config = json.load(open(sys.argv[1] + "/config.json"))
print(config.get("text_config", config)["num_hidden_layers"])' "$master")
some=$((count / 4 < 8 ? count / 4 : 8))
half=$((count / 2))
last=$((count - 1))

echo '| layers with 4 bits, the others 2 | mean bits | KL | perplexity |'
echo '|---|---|---|---|'
row 'none' --bits 2
for n in $some $half; do
    blocks "the first $n blocks" "$(seq -s ' ' 0 $((n - 1)))"
    blocks "the last $n blocks" "$(seq -s ' ' $((count - n)) $last)"
    blocks "$((n / 2)) blocks at the beginning, $((n - n / 2)) at the end" \
        "$(seq -s ' ' 0 $((n / 2 - 1))) $(seq -s ' ' $((count - n + n / 2)) $last)"
done
# shellcheck disable=SC2016 # no command is meant
row 'all but `down_proj`' --bits 2 --layer-bits '(self_attn|gate_proj|up_proj)=4'
# shellcheck disable=SC2016
row '`down_proj`' --bits 2 --layer-bits 'down_proj=4'
row 'all' --bits 4
row 'all with 3 bits' --bits 3
