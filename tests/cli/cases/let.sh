# --let: norms that are private to every width, codes of scaled weights, everything else the source's.
. "$CLI/shared.sh"
number() { stdout | python3 -c 'import json, sys; d = json.load(sys.stdin); print(*(d[k] for k in sys.argv[1:]))' "$@"; }
run 0 matquant quantize "$model" -o m $small --recipe paper --let -q
verified m
run 0 matquant inspect m
expect_out '^recipe.let +true$'
run 0 matquant eval m --bits 4 --text "$DATA/demo-eval.txt" --seq-len 64 --windows 2 --json
number perplexity nll >master
run 0 matquant slice m -o s4 --bits 4
run 0 python3 "$tools/read_mlx.py" m s4 4
verified s4
run 0 matquant eval s4 --text "$DATA/demo-eval.txt" --seq-len 64 --windows 2 --json
number perplexity nll >slice
expect_same master slice
# Every block's norm before the feed-forward network is every width's own and no other is; all widths have the same.
python3 - "$tools" <<'PY' || fail "not the norms that were expected"
import sys
sys.path.insert(0, sys.argv[1])
from checkpoint import read_tensors
tensors = read_tensors("m")
own = [name for name in tensors if ".weight.w" in name]
assert len(own) == 6 * 7 and all("post_attention_layernorm" in name for name in own), own
for layer in range(6):
    name = "model.layers.%d.post_attention_layernorm.weight" % layer
    copies = {tensors["%s.w%d" % (name, width)][2] for width in range(2, 9)}
    assert len(copies) == 1 and tensors[name][2] not in copies, name
PY
run 0 matquant quantize "$model" -o attention $small --recipe paper --let --include self_attn -q
verified attention
# OLMo 2 has no norm before its feed-forward network: no norm is anybody's own.
run 0 python3 "$tools/make_random_model.py" olmo2 "$model" olmo2
run 0 matquant quantize olmo2 -o outputs $small --recipe paper --let -q
run 0 matquant verify outputs --against olmo2
! grep -q 'layernorm\.weight\.w' outputs/model.safetensors || fail "a norm of its own"
run 2 matquant quantize "$model" -o no $small --let
expect_one_error "^matquant: --let is recipe paper's\$"
run 2 matquant quantize "$model" -o no $small --let --recipe paper --refit
expect_one_error '^matquant: --let and --refit .*'
expect_only m master slice s4 attention olmo2 outputs
