# GGUF's metadata and tensors for every architecture, rotary scaling and kind of tokenizer that it has: read back by a program
# that computes them from config.json anew. (Weights are plain: the models' rows are too short for blocks.)
. "$CLI/shared.sh"
# makes MODEL KIND EXPECTED [KEY=JSON...]: a master of a golden model with that tokenizer and these fields of config.json
makes() {
    rm -rf model master
    cp -rL "$GOLDEN/models/$1" model # weights that several share are links
    python3 - "$@" <<'PY'
import json, sys
config = json.load(open("model/config.json"))
for change in sys.argv[4:]:
    key, _, value = change.partition("=")
    config[key] = json.loads(value)
json.dump(config, open("model/config.json", "w"))
PY
    python3 "$tools/add_tokenizer.py" "$2" model
    run 0 matquant quantize model -o master --recipe rtn --group-size 8 -q
}
# converts MODEL KIND EXPECTED [KEY=JSON...]
converts() {
    makes "$@"
    expect_exists master/chat_template.jinja # which read_gguf.py then looks for
    run 0 matquant slice master -o $1-$2.gguf --bits 4 --format gguf --dtype f32 --force
    run 0 python3 "$tools/read_gguf.py" master $1-$2.gguf 4
    expect_out "^$3\$"
}
converts llama gpt-2 'llama, tokenizer gpt2 gpt-2, rope default'
converts llama llama2 'llama, tokenizer llama default, rope default'
converts llama-biases qwen2 'llama, tokenizer gpt2 qwen2, rope default'
converts llama-tied-bf16 smollm 'llama, tokenizer gpt2 smollm, rope default'
converts rope-llama3 llama-bpe 'llama, tokenizer gpt2 llama-bpe, rope llama3'
converts rope-linear llama2 'llama, tokenizer llama default, rope linear'
converts rope-yarn gpt-2 'llama, tokenizer gpt2 gpt-2, rope yarn'
converts gemma3 gemma 'gemma3, tokenizer llama default, rope default' query_pre_attn_scalar=16
converts gemma3-final-softcap gemma 'gemma3, tokenizer llama default, rope default' query_pre_attn_scalar=16

# What llama.cpp has not is refused by name, before anything is written.
refuses() {
    makes "$@"
    run 2 matquant slice master -o no.gguf --bits 4 --format gguf --dtype f32
    expect_one_error "^matquant: llama\\.cpp has not $3 for .*; use --format safetensors or mlx\$"
    [ ! -e no.gguf ] || fail "written all the same"
}
refuses gemma3 gemma 'this query_pre_attn_scalar'
refuses gemma3-attention-softcap gemma attn_logit_softcapping query_pre_attn_scalar=16
refuses rope-yarn-options gpt-2 'yarn with an attention factor .* rotary scaling'
refuses rope-dynamic gpt-2 'dynamic rotary scaling'
refuses llama-gelu gpt-2 'this activation'
