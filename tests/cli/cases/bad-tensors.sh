# Tensors that a model cannot be made of.
. "$CLI/shared.sh"
tensor='model\.layers\.1\.mlp\.up_proj\.weight'
refused nan "in/model.safetensors: tensor $tensor: at byte [0-9]+: .*not finite"
refused infinity "in/model.safetensors: tensor $tensor: at byte [0-9]+: .*not finite"
refused nan-norm 'in/model.safetensors: tensor model\.norm\.weight: at byte [0-9]+: .*not finite'
refused missing-tensor "in/model.safetensors: tensor $tensor: missing"
refused adapter-around 'in/model.safetensors: tensor model\.layers\.1\.mlp\.up_proj\.base_layer\.weight: belongs to an adapter that was not merged; .*'
refused missing-norm 'in/model.safetensors: tensor model\.layers\.2\.input_layernorm\.weight: missing'
refused missing-in-shards "in/model.safetensors.index.json: tensor $tensor: missing"
embeddings='in/model.safetensors: tensor model\.embed_tokens\.weight: missing; there is'
refused prefix-more "$embeddings _orig_mod\.model\.embed_tokens\.weight, but names with this prefix are not read"
refused prefix-none "$embeddings embed_tokens\.weight, but names without a prefix are not read"
refused untied 'in/model.safetensors: tensor lm_head\.weight: missing; if head and embeddings are one matrix, .*'
refused integer-weight "in/model.safetensors: tensor $tensor: its type I16 is none of F32, F16 and BF16"

# The offset is that of the value itself.
broken nan
run 3 matquant quantize in -o out $small
at=$(sed -n 's/.*at byte \([0-9]*\):.*/\1/p' "$TMPDIR/stderr")
[ "$(od -An -tx1 -j "$at" -N 2 in/model.safetensors | tr -d ' ')" = c07f ] || fail "no NaN at byte $at"

# eval reads the same tensors.
broken infinity
run 3 matquant eval in --text "$DATA/demo-eval.txt" --seq-len 32 --windows 1 -q
expect_one_error "^matquant: in/model.safetensors: tensor $tensor: at byte [0-9]+: .*"
expect_only in
