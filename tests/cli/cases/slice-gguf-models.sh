# cost: 6
# GGUF's metadata and tensors for every architecture, rotary scaling and kind of tokenizer that it has: read back by a program
# that computes them from config.json anew. (Weights are plain: the models' rows are too short for blocks.)
. "$CLI/shared.sh"

# converts EXPECTED MODEL KIND [KEY=JSON...]
converts() {
    result=$1
    shift
    golden_master "$@"
    expect_exists master/chat_template.jinja # which read_gguf.py then looks for
    run 0 matquant slice master -o out.gguf --bits 4 --format gguf --dtype f32 --force
    run 0 python3 "$tools/read_gguf.py" master out.gguf 4
    expect_out "^$result\$"
}
converts 'llama, tokenizer gpt2 gpt-2, rope default' llama gpt-2
converts 'llama, tokenizer llama default, rope default' llama llama2
converts 'llama, tokenizer gpt2 qwen2, rope default' llama-biases qwen2
converts 'llama, tokenizer gpt2 smollm, rope default' llama-tied-bf16 smollm
converts 'llama, tokenizer gpt2 llama-bpe, rope llama3' rope-llama3 llama-bpe
converts 'llama, tokenizer gpt2 smaug-bpe, rope default' llama smaug-bpe
converts 'llama, tokenizer llama default, rope linear' rope-linear llama2
converts 'llama, tokenizer gpt2 gpt-2, rope yarn' rope-yarn gpt-2
for betas in '32,"beta_slow":1' '0,"beta_slow":null'; do # llama.cpp's own, and what is those to transformers
    converts 'llama, tokenizer gpt2 gpt-2, rope yarn' rope-yarn gpt-2 \
        rope_parameters='{"rope_type":"yarn","factor":4,"rope_theta":1000,"beta_fast":'$betas'}'
done
converts 'llama, tokenizer llama default, rope default' mistral-no-window llama2
converts 'llama, tokenizer llama default, rope default' mistral llama2
no_more="tokens is not the model's; the file says .* no more \(context_length\), and llama-server takes no longer text\$"
run 0 matquant slice master -o out.gguf --bits 4 --format gguf --dtype f32 --force
expect_err "warning: llama.cpp computes MistralForCausalLM without its windows: .* more than 5 $no_more"
converts 'llama, tokenizer llama default, rope linear' mistral llama2 rope_theta=null \
    rope_parameters='{"rope_type":"linear","factor":4,"rope_theta":1000}'
converts 'qwen2, tokenizer gpt2 qwen2, rope default' qwen2 qwen2
converts 'qwen3, tokenizer gpt2 qwen2, rope default' qwen3 qwen2
converts 'smollm3, tokenizer gpt2 smaug-bpe, rope default' smollm3-interval smaug-bpe # what GGUF files of SmolLM3-3B have
converts 'smollm3, tokenizer gpt2 llama-bpe, rope yarn' smollm3-interval llama-bpe 'no_rope_layers=[1,1,1,0]' rope_theta=null \
    rope_parameters='{"rope_type":"yarn","factor":4,"rope_theta":1000}'
converts 'gemma3, tokenizer llama default, rope default' gemma3 gemma query_pre_attn_scalar=16
# patterned COUNT TYPES: in one number, or in a list, of which there are so many warnings
patterned() {
    converts 'gemma3, tokenizer llama default, rope default' gemma3 gemma query_pre_attn_scalar=16 \
        "layer_types=[$(printf '"%s_attention",' $2 | sed 's/,$//')]"
    run 0 matquant slice master -o out.gguf --bits 4 --format gguf --dtype f32 --force
    [ "$(grep -c 'llama\.cpp reads which layers of gemma3 have windows since September 2026' "$TMPDIR/stderr")" = $1 ] ||
        fail "layers $2: not $1 warnings"
}
patterned 0 'sliding full sliding'
patterned 0 'sliding sliding full'
patterned 0 'sliding sliding sliding'
patterned 1 'full sliding full'
converts 'gemma3, tokenizer llama default, rope default' gemma3-final-softcap gemma query_pre_attn_scalar=16
converts 'gemma3, tokenizer llama default, rope linear' gemma3-v4-bf16 gemma query_pre_attn_scalar=16
converts 'gemma2, tokenizer llama default, rope default' gemma2 gemma query_pre_attn_scalar=16
converts 'gemma2, tokenizer llama default, rope default' gemma2-published gemma query_pre_attn_scalar=16
converts 'gemma2, tokenizer llama default, rope yarn' gemma2 gemma query_pre_attn_scalar=16 \
    rope_parameters='{"rope_type":"yarn","factor":4,"rope_theta":1000}'
converts 'granite, tokenizer gpt2 smollm, rope default' granite smollm # Granite 3's splits text alike
converts 'granite, tokenizer gpt2 smollm, rope default' granite-plain smollm
converts 'granite, tokenizer gpt2 smollm, rope linear' granite-biases smollm
converts 'granite, tokenizer gpt2 smollm, rope llama3' granite smollm rope_theta=null rope_parameters='{"rope_type":"llama3",
    "factor":8,"rope_theta":1000,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":128}'
converts 'olmo2, tokenizer gpt2 smaug-bpe, rope default' olmo2 dolma2
converts 'olmo2, tokenizer gpt2 smaug-bpe, rope yarn' olmo2 dolma2 rope_theta=null \
    rope_parameters='{"rope_type":"yarn","factor":4,"rope_theta":1000}'

converts 'phi3, tokenizer llama default, rope default' phi3 llama2
run 0 matquant slice master -o out.gguf --bits 4 --format gguf --dtype f32 --force
expect_err "warning: llama.cpp computes Phi3ForCausalLM without its windows: .* more than 5 $no_more"
converts 'phi3, tokenizer llama default, rope default' phi3-no-window llama2
converts 'phi3, tokenizer gpt2 smaug-bpe, rope default' phi3-no-window phi-4
converts 'phi3, tokenizer gpt2 gpt-2, rope longrope' phi4-mini gpt-2
converts 'phi3, tokenizer gpt2 gpt-2, rope longrope' phi4-mini-factor gpt-2
converts 'phi3, tokenizer gpt2 gpt-2, rope longrope' phi4-mini-v5 gpt-2

# What added tokens say of what is beside them, and llama.cpp has not: but for white space after Phi-3's, that is said.
# flags EXPECTED MODEL KIND CHANGE: how many tokens, and the first; nothing: no warning
flags() {
    says=${1:+"does not heed lstrip, rstrip and single_word of added tokens \($1\)"} change_tokenizer=$4
    golden_master "$2" "$3"
    run 0 matquant slice master -o out.gguf --bits 4 --format gguf --dtype f32 --force
    if [ -n "$says" ]; then
        expect_err "^matquant: warning: tokenizer\.json: llama\.cpp $says: .*"
    else
        expect_no_err
    fi
}
as_phi3='v = t["model"]["vocab"]
v["<|endoftext|>"] = v.pop("A")
t["added_tokens"].append(dict(t["added_tokens"][0], id=v["<|endoftext|>"], content="<|endoftext|>"))
v["<|end|>"] = v.pop("B")
t["added_tokens"].append(dict(t["added_tokens"][0], id=v["<|end|>"], content="<|end|>"))
for token in t["added_tokens"]:
    token["rstrip"] = token["content"] in ("</s>", "<|end|>")
'
flags '3, such as "<unk>"' phi3-no-window phi-4 ''
flags '' llama gpt-2 ''
flags '1, such as "</s>"' llama gpt-2 't["added_tokens"][2]["lstrip"] = True'
flags '1, such as "</s>"' llama llama2 't["added_tokens"][2]["rstrip"] = True'
flags '1, such as "<s>"' llama gpt-2 't["added_tokens"][1]["single_word"] = True'
flags '' phi3-no-window llama2 "$as_phi3"
grep -aq 'Phi-3 master' out.gguf || fail "a name that llama.cpp does not know"
flags '2, such as "</s>"' llama llama2 "$as_phi3" # of no such name
flags '1, such as "<\|end\|>"' phi3-no-window llama2 "$as_phi3"'t["added_tokens"][4]["rstrip"] = False'
flags '1, such as "<s>"' phi3-no-window llama2 "$as_phi3"'t["added_tokens"][1]["rstrip"] = True'
change_tokenizer=

# Llama's tokenizer as transformers 5 writes it: what llama.cpp does otherwise is said, and only that.
other_tokens='warning: tokenizer\.json: llama\.cpp puts a space'
converts 'llama, tokenizer llama default, rope default' llama llama-v5
run 0 matquant slice master -o out.gguf --bits 4 --format gguf --dtype f32 --force
expect_err "$other_tokens after every special token and before text that begins with one, which this tokenizer does not: "
for scheme in always never; do
    change_tokenizer='t["pre_tokenizer"]["prepend_scheme"] = "'$scheme'"'
    converts 'llama, tokenizer llama default, rope default' llama llama-v5
    run 0 matquant slice master -o out.gguf --bits 4 --format gguf --dtype f32 --force
    if [ $scheme = always ]; then
        expect_err "$other_tokens before text that begins with one, also after a special token, which this tokenizer does not: "
    else
        ! grep -q 'tokenizer' "$TMPDIR/stderr" || fail "a warning without a reason"
    fi
done
change_tokenizer=

# A row without a token, whose usual name a token has: another name.
for kind in gpt-2 llama2; do
    change_tokenizer='v = t["model"]["vocab"]
taken = {id: text for text, id in v.items()}
v.pop(taken[40]), v.pop(taken[41]), v.pop(taken[42])
v.update({"[PAD40]": 41, "[PAD40_2]": 42})'
    converts 'llama, tokenizer .*' llama $kind
    grep -aq '\[PAD40_3\]' out.gguf || fail "no other name"
done
change_tokenizer=

# The same tokenizer as the first programs wrote it, which eval reads, gives the same file.
printf 'abcdabcdabcd' >text.txt
for kind in gpt-2 llama2; do
    converts 'llama, tokenizer .*' llama $kind
    mv out.gguf new.gguf
    python3 - <<'PY'
import json
tokenizer = json.load(open("master/tokenizer.json"))
model = tokenizer["model"]
del model["type"]
model["merges"] = ["#version: 0.2"] + [" ".join(merge) for merge in model["merges"]]
json.dump(tokenizer, open("master/tokenizer.json", "w"))
PY
    run 0 matquant eval master --bits 4 --text text.txt --seq-len 2 --windows 1
    run 0 matquant slice master -o out.gguf --bits 4 --format gguf --dtype f32
    expect_same out.gguf new.gguf
done

# Whether llama.cpp begins a text as eval does, by the template or, without one, by tokenizer_config.json.
begins() {
    change_tokenizer=$1 golden_master llama gpt-2
    [ -z "$2" ] || printf '%s' "$2" >master/tokenizer_config.json
    run 0 matquant slice master -o out.gguf --bits 4 --format gguf --dtype f32 --force
    # a key of the metadata, its type (7: a truth value), and the value
    begin=$(python3 -c 'import sys
data, key = open("out.gguf", "rb").read(), b"tokenizer.ggml.add_bos_token"
at = data.index(key) + len(key)
assert data[at:at + 4] == b"\7\0\0\0"
print(data[at + 4])')
    [ "$begin" = "$3" ] || fail "begins $*: $begin"
}
begins '' '' 1
begins 't["post_processor"] = None' '{"bos_token": "<s>", "eos_token": "</s>"}' 0
begins 't["post_processor"] = None' '{"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": false}' 0
begins 't["post_processor"] = None' '{"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true}' 1

# reads EXPECTED: what `master`, whose small files have changed, makes of it.
reads() {
    run 0 matquant slice master -o out.gguf --bits 4 --format gguf --dtype f32 --force
    run 0 python3 "$tools/read_gguf.py" master out.gguf 4
    expect_out "^$1\$"
}

# Sampling, of generation_config.json: what llama.cpp's converter has keys for, in its types (5: int32, 6: float32, 8: a string).
change_tokenizer=
golden_master llama gpt-2
reads 'sampling: '
# draws EXPECTED JSON
draws() {
    printf '%s' "$2" >master/generation_config.json
    reads "sampling: $1"
}
draws 'min_p:6=0.05 penalty_repeat:6=1.05 temp:6=0.6 top_k:5=20 top_p:6=0.95' \
    '{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.05,
    "eos_token_id": [2, 1], "transformers_version": "5.24.0"}'
draws 'temp:6=0 top_k:5=-1 top_p:6=1' '{"temperature": 0, "top_k": -1, "top_p": 1, "min_p": null}'
others='mirostat:5=2 mirostat_eta:6=0.1 mirostat_tau:6=5 penalty_last_n:5=64 penalty_repeat:6=1.1'
draws "$others sequence:8=top_k;temp xtc_probability:6=0.5 xtc_threshold:6=0.1" \
    '{"sequence": "top_k;temp", "xtc_probability": 0.5, "xtc_threshold": 0.1, "penalty_last_n": 64, "penalty_repeat": 1.1,
    "mirostat": 2, "mirostat_tau": 5, "mirostat_eta": 0.1}'
draws 'penalty_repeat:6=1.1' '{"repetition_penalty": 1.05, "penalty_repeat": 1.1}'
draws 'penalty_repeat:6=1' '{"repetition_penalty": 1, "penalty_repeat": null}'
draws '' '{"temperature": "0.6", "top_k": 20.5, "top_p": true, "min_p": [0.1], "xtc_threshold": 1e39, "mirostat": 2147483648,
    "penalty_last_n": 1e300, "sequence": 1}'
for text in '[]' '{"temperature": 0.'; do # nothing else needs it
    printf '%s' "$text" >master/generation_config.json
    run 0 matquant slice master -o out.gguf --bits 4 --format gguf --dtype f32 --force -q
    expect_err '^matquant: warning: generation_config\.json cannot be read, and the slice says nothing of sampling$'
    if grep -q general.sampling out.gguf; then fail "sampling, of a file that cannot be read"; fi
done

# What ends a text, if generation_config.json alone names it; if nothing does, llama.cpp takes a token that is right for Llama 2's
# tokenizer only.
# ends KIND ID JSON: ID '': nothing is named, and that is said
ends() {
    printf '{"bos_token": "<s>"}' >master/tokenizer_config.json
    printf '%s' "$3" >master/generation_config.json
    reads "end of text: ${2:-None}"
    run 0 matquant slice master -o out.gguf --bits 4 --format gguf --dtype f32 --force
    if [ "$1" = gpt-2 ] && [ -z "$2" ]; then
        expect_err '^matquant: warning: nothing names the token that ends a text \(.*\): llama\.cpp takes token 11 for it, "\)"$'
    else
        expect_no_err
    fi
}
for kind in gpt-2 llama2; do
    golden_master llama $kind eos_token_id=null
    ends $kind 2 '{"eos_token_id": 2}'
    ends $kind 1 '{"eos_token_id": [1, 2]}'
    for id in 64 -1 '"2"' '[]' null; do
        ends $kind '' "{\"eos_token_id\": $id}"
    done
done
golden_master llama gpt-2
ends gpt-2 2 '{"eos_token_id": 1}' # config.json's counts
rm master/generation_config.json

# Several chat templates in tokenizer_config.json: each by its name, which has letters and digits only, and the last of a name.
reads 'chat templates: default'
# talks EXPECTED TEMPLATES
talks() {
    printf '{"bos_token": "<s>", "eos_token": "</s>", "chat_template": %s}' "$2" >master/tokenizer_config.json
    reads "chat templates: $1"
}
several='{"name": "default", "template": "{{ 1 }}"}, {"name": "tool_use", "template": "{{ 2 }}"},
    {"name": "a-b", "template": "{{ 3 }}"}'
talks default "[$several]" # chat_template.jinja is it
rm master/chat_template.jinja
talks default '"{{ 1 }}"'
talks 'a_b default tool_use' "[$several]"
talks 'a_b default tool_use' "[$several, {\"name\": \"a_b\", \"template\": \"{{ 4 }}\"}]"
talks 'a__ default tool_use' '[{"name": "tool_use", "template": ""}, {"name": "default", "template": "{{ 1 }}"},
    {"name": "a\u00e9\u20ac", "template": "{{ 5 }}"}]'
talks 'only' '[{"name": "only", "template": "{{ 1 }}"}]'
talks '' '[{"name": "", "template": "{{ 1 }}"}, {"name": "none", "template": null}]'
talks '' null
