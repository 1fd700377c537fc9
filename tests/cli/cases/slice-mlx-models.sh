# config.json of a slice for mlx-lm: rotary settings in the spelling that all of its families read, whichever the source has;
# and the slice is the same model to eval.
. "$CLI/shared.sh"

# spelled EXPECTED MODEL: rope_theta, rope_local_base_freq, the scaling's kind and factor, and whether rope_parameters is there.
spelled() {
    run 0 matquant quantize "$GOLDEN/models/$2" -o master --recipe rtn --group-size 32 --include "self_attn.[qkv]_" -q --force
    run 0 matquant slice master -o slice --bits 4 --force
    found=$(python3 -c 'import json
config = json.load(open("slice/config.json"))
scaling = config.get("rope_scaling") or {}
print(config.get("rope_theta"), config.get("rope_local_base_freq"), scaling.get("rope_type") or scaling.get("type"),
      scaling.get("factor"), "rope_parameters" in config)')
    [ "$found" = "$1" ] || fail "$2: $found, not $1"
    python3 -c 'import json, struct
with open("ids.npy", "wb") as file:
    header = b"{\"descr\": \"<i4\", \"fortran_order\": False, \"shape\": (2, 24), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    file.write(struct.pack("<48i", *(7 * i % 64 for i in range(48))))'
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
spelled '1000 None yarn 4 False' qwen3-biases
sed 's/"factor":[ \t]*4/"factor": 5/' slice/config.json >other
cp other slice/config.json
run 1 matquant verify slice --against "$GOLDEN/models/qwen3-biases"
expect_err 'config.json: differs from the source.s in "rope_parameters"'

run 0 matquant quantize "$GOLDEN/models/qwen3-biases" -o master --recipe rtn --group-size 32 --include "self_attn.[qkv]_" -q --force
run 0 matquant slice master -o slice --bits 4 --force
expect_err '^matquant: warning: mlx-lm has no biases for Qwen3ForCausalLM, and will not load this slice$'
run 0 matquant quantize "$GOLDEN/models/mistral" -o master --recipe rtn --group-size 32 --include "self_attn.[qkv]_" -q --force
run 0 matquant slice master -o slice --bits 4 --force
expect_err '^matquant: warning: mlx-lm computes MistralForCausalLM without its windows: .* more than 5 tokens .*'
