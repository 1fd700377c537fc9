# config.json of a slice for mlx-lm: rotary settings in the spelling that all of its families read, whichever the source has;
# and the slice is the same model to eval.
. "$CLI/shared.sh"

# Text as token ids.
python3 -c 'for first in 0, 24: print(*(7 * i % 64 for i in range(first, first + 24)))' | python3 "$tools/write_npy.py" ids.npy

# spelled EXPECTED MODEL: rope_theta, rope_local_base_freq, the scaling's kind and factor, and whether rope_parameters is there.
spelled() {
    run 0 matquant quantize "$GOLDEN/models/$2" -o master --recipe rtn --group-size 32 --include "self_attn.(q|k|v|qkv)_" -q --force
    run 0 matquant slice master -o slice --bits 4 --force
    found=$(python3 -c 'import json
config = json.load(open("slice/config.json"))
scaling = config.get("rope_scaling") or {}
print(config.get("rope_theta"), config.get("rope_local_base_freq"), scaling.get("rope_type") or scaling.get("type"),
      scaling.get("factor"), "rope_parameters" in config)')
    [ "$found" = "$1" ] || fail "$2: $found, not $1"
    run 0 matquant eval slice --text ids.npy --windows 2 --seq-len 24 --reference "$GOLDEN/models/$2" --json
    stdout | sed 's/.*"kl"/"kl"/; /"kl"/!d' >sliced
    run 0 matquant eval master --bits 4 --text ids.npy --windows 2 --seq-len 24 --reference "$GOLDEN/models/$2" --json
    stdout | sed 's/.*"kl"/"kl"/; /"kl"/!d' >whole
    grep -q '"kl":.*[1-9]' whole || fail "no KL"
    expect_same sliced whole
    run 0 matquant verify slice --against "$GOLDEN/models/$2"
}
spelled '1000 None None None False' rope-default
spelled '1000 None linear 4 False' rope-linear
spelled '1000 None yarn 4 False' rope-yarn
spelled '1000 None linear 4 False' rope-linear-v4
spelled '1000000 100 None None False' gemma3
spelled '100 100 dynamic 4 False' gemma3-dynamic
spelled '5000 50 linear 8 False' gemma3-v4-bf16
spelled '1000 None None None False' smollm3
spelled '2000000 None None None False' smollm3-biases
spelled '1000 None None None False' gemma2
spelled '5000 None None None False' gemma2-published
spelled '1000 None None None False' granite
spelled '1000 None linear 4 False' granite-biases
spelled '1000 None None None False' olmo2
spelled '1000 None yarn 4 False' olmo2-biases
spelled '1000 None longrope 40.0 False' phi4-mini-factor
# mlx-lm reads beside the scaling what transformers 5 writes in it.
spelled '1000 None longrope None False' phi4-mini-v5
[ "$(python3 -c 'import json; config = json.load(open("slice/config.json"))
print(config["partial_rotary_factor"], config["original_max_position_embeddings"], config["rope_scaling"]["type"])')" = \
    '0.75 32 longrope' ] || fail "something is missing beside longrope"
spelled '1000 None yarn 4 False' qwen3-biases
sed 's/"factor":[ \t]*4/"factor": 5/' slice/config.json >other
cp other slice/config.json
run 1 matquant verify slice --against "$GOLDEN/models/qwen3-biases"
expect_err 'config.json: differs from the source.s in "rope_parameters"'

run 0 matquant quantize "$GOLDEN/models/qwen3-biases" -o master --recipe rtn --group-size 32 --include "self_attn.(q|k|v|qkv)_" -q --force
run 0 matquant slice master -o slice --bits 4 --force
expect_err '^matquant: warning: mlx-lm has no biases for Qwen3ForCausalLM, and will not load this slice$'
for model in rope-dynamic gemma3-dynamic; do
    run 0 matquant quantize "$GOLDEN/models/$model" -o master --recipe rtn --group-size 32 --include "self_attn.(q|k|v|qkv)_" -q --force
    run 0 matquant slice master -o slice --bits 4 --force
    ! grep -q dynamic "$TMPDIR/stderr" || fail "a warning without a reason"
done
# warns MODEL WARNING...
warns() {
    run 0 matquant quantize "$GOLDEN/models/$1" -o master --recipe rtn --group-size 32 --include "self_attn.(q|k|v|qkv)_" -q --force
    run 0 matquant slice master -o slice --bits 4 --force
    shift
    for warning; do
        expect_err "^matquant: warning: mlx-lm $warning\$"
    done
}
warns mistral 'computes MistralForCausalLM without its windows: .* more than 5 tokens .*'
warns gemma2 'computes Gemma2ForCausalLM without its windows: .* more than 5 tokens .*'
! grep -q softcapping "$TMPDIR/stderr" || fail "a warning without a reason"
warns gemma2-attention-uncapped \
    'has no attention without attn_logit_softcapping for Gemma2ForCausalLM, and will not run this slice'
warns gemma2-logits-uncapped 'has no logits without final_logit_softcapping for Gemma2ForCausalLM, and will not run this slice'
warns phi3 'computes Phi3ForCausalLM without its windows: .* more than 5 tokens .*'
warns phi4-mini "has not longrope's short factors \(it goes by the long ones\) for Phi3ForCausalLM: .*"
! grep -q 'attention factor' "$TMPDIR/stderr" || fail "a warning without a reason"
for model in phi4-mini-factor phi4-mini-v5; do
    warns $model 'has not longrope with an attention factor of its own for Phi3ForCausalLM: .*'
done
warns gemma2-own-head 'has no biases for Gemma2ForCausalLM, and will not load this slice' \
    'has no head beside the embeddings for Gemma2ForCausalLM, and will not load this slice'

# fills EXPECTED MODEL NAMES...: of a config.json that has these fields no more, what the slice says of them and of the rotary base,
# since mlx-lm has other defaults; and it is the same model.
fills() {
    wanted=$1 from=$2
    shift 2
    rm -rf model
    cp -rL "$GOLDEN/models/$from" model
    change_config 'for name in sys.argv[2:]: config.pop(name)' "$@"
    run 0 matquant quantize model -o master --recipe rtn --group-size 32 --include "self_attn.(q|k|v|qkv)_" --force -q
    run 0 matquant slice master -o slice --bits 4 --force
    found=$(python3 -c 'import json, sys
config = json.load(open("slice/config.json"))
print(config["rope_theta"], *(config.get(name) for name in sys.argv[1:]))' "$@")
    [ "$found" = "$wanted" ] || fail "$from: $found, not $wanted"
    run 0 matquant verify slice --against model
}
# change_config PYTHON ARGUMENT...: what `config` of `model` becomes by it.
change_config() {
    python3 -c 'import json, sys
config = json.load(open("model/config.json"))
exec(sys.argv[1])
json.dump(config, open("model/config.json", "w"))' "$@"
}
fills '10000 None False 4 2048' llama rope_parameters tie_word_embeddings num_key_value_heads max_position_embeddings
fills '1000000 True 1e-06' gemma3 tie_word_embeddings rms_norm_eps
[ "$(python3 -c 'import json; print(json.load(open("slice/config.json"))["sliding_window_pattern"])')" = 2 ] ||
    fail "not every second layer is a global one"
fills '1000000 4096' gemma3 sliding_window
# (Of soft caps both have the same defaults.)
fills '1000 None None 256' gemma2 attn_logit_softcapping final_logit_softcapping query_pre_attn_scalar
fills '1000 True [1, 1, 1, 0]' smollm3-interval tie_word_embeddings no_rope_layers
fills '1000 1 1 1 1 False False' granite embedding_multiplier attention_multiplier residual_multiplier logits_scaling \
    attention_bias mlp_bias
fills '10000 10000 4 2048 False' olmo2 rope_theta num_key_value_heads max_position_embeddings tie_word_embeddings
# The length that a scaling was made for.
run 0 matquant quantize "$GOLDEN/models/rope-yarn" -o master --recipe rtn --group-size 32 --include "self_attn.(q|k|v|qkv)_" --force -q
run 0 matquant slice master -o slice --bits 4 --force
scaling() { python3 -c 'import json; print(*sorted(json.load(open("slice/config.json"))["rope_scaling"].items()))'; }
[ "$(scaling)" = "('beta_fast', 32) ('beta_slow', 1) ('factor', 4) ('original_max_position_embeddings', 8) ('rope_type', 'yarn')" ] ||
    fail "not all of yarn: $(scaling)"
# What is null or 0 there is not given, and mlx-lm would take it for given.
rm -rf model
cp -rL "$GOLDEN/models/rope-yarn" model
change_config 'config.pop("model_type"); config["rope_parameters"].update(mscale=0, mscale_all_dim=0, beta_fast=0, beta_slow=None)'
run 0 matquant quantize model -o master --recipe rtn --group-size 32 --include "self_attn.(q|k|v|qkv)_" --force -q
run 0 matquant slice master -o slice --bits 4 --force
expect_no_err
[ "$(scaling | sed "s/('factor', [^)]*) ('orig[^)]*) //")" = "('beta_fast', 32) ('beta_slow', 1) ('rope_type', 'yarn')" ] ||
    fail "null and 0: $(scaling)"
scaling | grep -q "('factor', [1-9]" || fail "no factor"
grep -q '"model_type":[[:space:]]*"llama"' slice/config.json || fail "no model_type"
run 0 matquant verify slice --against model
# What differs is named, not what is spelled otherwise.
change_config 'config["hidden_act"] = "gelu_pytorch_tanh"'
run 1 matquant verify slice --against model
expect_err 'config.json: differs from the source.s in "hidden_act"'

# lacks WHAT MODEL CHANGE: mlx-lm leaves that out without a word, so slice does not.
lacks() {
    rm -rf model
    cp -rL "$GOLDEN/models/$2" model
    change_config "$3"
    run 0 matquant quantize model -o master --recipe rtn --group-size 32 --include "self_attn.(q|k|v|qkv)_" --force -q
    run 0 matquant slice master -o slice --bits 4 --force
    expect_err "^matquant: warning: mlx-lm has not $1 for .*: what it computes of this slice is not the model\$"
}
lacks 'this activation' llama-gelu ''
lacks 'this activation' granite 'config["hidden_act"] = "gelu_pytorch_tanh"'
lacks 'attn_logit_softcapping' gemma3-attention-softcap ''
lacks 'final_logit_softcapping' gemma3-final-softcap ''
lacks 'windows in these layers .*' gemma3 'config["layer_types"].reverse(); config["layer_types"][0] = "full_attention"'
lacks "the local layers' rotary scaling .*" gemma3 \
    'config["rope_parameters"]["sliding_attention"].update(rope_type="linear", factor=4.0)'
lacks 'rotary scaling' gemma2-own-head ''
lacks 'yarn with an attention factor .*' rope-yarn-options ''

# A head beside embeddings that are the head: mlx-lm would not load parts of it, and neither would gptqmodel.
rm -rf model
cp -rL "$GOLDEN/models/llama" model
change_config 'config["tie_word_embeddings"] = True'
python3 - <<'PY'
import json
with open("model/model.safetensors", "r+b") as file:
    size = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(size))
    at = {name: header[name + ".weight"]["data_offsets"] for name in ("model.embed_tokens", "lm_head")}
    file.seek(8 + size + at["model.embed_tokens"][0])
    rows = file.read(at["model.embed_tokens"][1] - at["model.embed_tokens"][0])
    file.seek(8 + size + at["lm_head"][0])
    file.write(rows)
PY
for embeddings in keep nested; do
    run 0 matquant quantize model -o master --recipe rtn --group-size 32 --include "self_attn.(q|k|v|qkv)_" --embeddings $embeddings --force -q
    grep -q 'lm_head' master/model.safetensors || fail "no head in the master"
    run 0 matquant slice master -o slice --bits 4 --force
    ! grep -q 'lm_head' slice/model.safetensors slice/config.json || fail "the head came along"
    run 0 matquant verify slice --against model
    for format in gptq compressed-tensors; do
        run 0 matquant slice master -o integer --bits 4 --format $format --force -q
        run 0 python3 "$tools/read_integer.py" master integer 4
        ! grep -q 'lm_head\.' integer/model.safetensors || fail "the head came along in $format"
    done
    # And inspect of the master foretells it.
    for folder in master slice; do
        run 0 matquant inspect $folder --json
        stdout | python3 -c 'import json, sys
print(*((w["bits_per_weight"], w["bytes"]) for w in json.load(sys.stdin)["widths"] if w["bits"] == 4))' >$folder.size
    done
    expect_same master.size slice.size
done
