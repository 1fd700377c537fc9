# cost: 10
# Linears that are rows of one tensor: a Llama as a Phi-3 with fused projections has the same numbers in its master, whatever
# made them, also in a run that goes on where another was stopped; and in every width the same divergence.
. "$CLI/shared.sh"
model=$short_model
run 0 python3 "$tools/fused.py" make "$model" fused
learns="--calib $DATA/demo-calib.jsonl.gz --samples 4 --seq-len 64 --epochs 1 --periods 2,1,1 --gemm openblas"
# alike OPTION...
alike() {
    run 0 matquant quantize "$model" -o plain-master --group-size 32 --force -q "$@"
    run 0 matquant quantize fused -o fused-master --group-size 32 --force -q "$@"
    run 0 python3 "$tools/fused.py" compare plain-master fused-master
    expect_out "$says"
    run 0 matquant verify fused-master --against fused
}
says='^198 tensors are the same, 0 of them'
alike --recipe rtn --embeddings nested
says='^[0-9]* tensors are the same, 0 of them'
alike --recipe rtn --scope ffn --exclude 'layers.1.*(gate|up|gate_up)_proj'
says='^[0-9]* tensors are the same, 21 of them' # 3 norms, divided, and 7 widths
# shellcheck disable=SC2086 # words
alike --recipe paper --let $learns
says='^[0-9]* tensors are the same, 28 of them' # 7 norms and 4 widths
# shellcheck disable=SC2086
alike --exclude down_proj --zero-point symmetric $learns
# shellcheck disable=SC2086
alike --qat $learns

# What is counted and named is tensors: two of seven linears fewer than a Llama has for each fused one.
run 0 matquant inspect fused-master
expect_out '^tensors +20, of which quantized 12$'
grep -q '"ignored": *\[\]' fused-master/config.json || fail "something is left as it was"
run 2 matquant quantize fused -o no --recipe rtn --include q_proj -q
expect_one_error "^matquant: --include 'q_proj' matches no linear layer of the blocks.*"
run 0 matquant quantize fused -o qkv --recipe rtn --include qkv_proj -q --group-size 32
run 0 python3 -c 'import json
print(json.load(open("qkv/config.json"))["quantization_config"]["ignored"][:3])'
expect_out "'model.layers.0.self_attn.o_proj', 'model.layers.0.mlp.gate_up_proj', 'model.layers.0.mlp.down_proj'"

# Any width of both is the same model.
for folder in plain-master fused-master; do
    run 0 matquant eval $folder --bits 8,4,3,2 --text "$DATA/demo-eval.txt" --windows 2 --seq-len 64 --json
    stdout | grep -o '"\(nll\|perplexity\)":[^,]*' >$folder.eval
    grep -q nll $folder.eval || fail "no losses"
done
expect_same plain-master.eval fused-master.eval
run 0 matquant eval fused-master --bits 4 --layer-bits 'layers.1.*(qkv|gate_up)=8' --text "$DATA/demo-eval.txt" --windows 2 --seq-len 64
run 0 matquant slice fused-master -o slice --bits 4
run 0 matquant verify slice --against fused

# Stopped in the second block, then in the second width of the refit, then to the end.
quantize="matquant quantize fused --group-size 32 $learns"
run 0 $quantize -o whole
run 5 python3 "$tools/signal_after.py" INT '^learn .*block 1/3' $quantize -o out --state state --threads 1
run 5 python3 "$tools/signal_after.py" INT '^refit .*: int4' $quantize -o out --state state --threads 2
expect_exists state/block-00002.safetensors
expect_exists state/refit-w4.safetensors
run 0 $quantize -o out --state state
diff -r whole out || fail "going on made another master"

# A tensor of another height than its linears have together.
python3 - <<'PY'
import json
config = json.load(open("fused/config.json"))
json.dump({**config, "num_key_value_heads": 4}, open("fused/config.json", "w"))
PY
run 3 matquant quantize fused -o no --recipe rtn -q
expect_one_error '^matquant: fused/model.safetensors: tensor model.layers.0.self_attn.qkv_proj.weight: its shape \[256, 128\] contradicts config.json, which makes it \[384, 128\]$'
