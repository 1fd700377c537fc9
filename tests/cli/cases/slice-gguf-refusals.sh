# What GGUF or llama.cpp has not is refused by name, before anything is written.
. "$CLI/shared.sh"

# refuses STATUS REGEX MODEL KIND [KEY=JSON...]
refuses() {
    ends_with=$1 says=$2
    shift 2
    golden_master "$@"
    run $ends_with matquant slice master -o no.gguf --bits 4 --format gguf --dtype f32
    expect_one_error "^matquant: $says\$"
    [ ! -e no.gguf ] || fail "written all the same"
}

# model WHAT MODEL KIND [KEY=JSON...]
model() {
    says="llama\\.cpp has not $1 for .*; use --format safetensors or mlx"
    shift
    refuses 2 "$says" "$@"
}
model 'this query_pre_attn_scalar' gemma3 gemma
model 'attn_logit_softcapping' gemma3-attention-softcap gemma query_pre_attn_scalar=16
model 'this activation' llama-gelu gpt-2
model 'dynamic rotary scaling' rope-dynamic gpt-2
model 'dynamic rotary scaling' gemma3-dynamic gemma query_pre_attn_scalar=16
model 'yarn with an attention factor .* rotary scaling' rope-yarn-options gpt-2
for beta in '"beta_fast":16' '"beta_slow":2'; do
    model 'yarn with a beta_fast other than 32 or a beta_slow other than 1 as rotary scaling' rope-yarn gpt-2 \
        rope_parameters='{"rope_type":"yarn","factor":4,"rope_theta":1000,'$beta'}'
done
scaled() { printf '{"%s":{"rope_type":"%s","factor":4,"rope_theta":100},"%s":{"rope_type":"default","rope_theta":100}}' "$@"; }
model 'this rotary scaling' gemma3 gemma query_pre_attn_scalar=16 \
    rope_parameters="$(scaled full_attention yarn sliding_attention)"
model 'biases' qwen3-biases qwen2
llama3='{"rope_type":"llama3","factor":8,"rope_theta":100,"low_freq_factor":1,"high_freq_factor":4,
    "original_max_position_embeddings":16}'
model "llama3's rotary scaling" qwen3 qwen2 rope_theta=null rope_parameters="$llama3"
model "llama3's rotary scaling" smollm3-interval smaug-bpe rope_theta=null rope_parameters="$llama3"
model 'biases' smollm3-biases smaug-bpe
model 'this activation' phi3 llama2 'hidden_act="gelu_pytorch_tanh"'
model 'this pattern of no_rope_layers' smollm3 smaug-bpe
model 'this pattern of no_rope_layers' smollm3-all-rotate smaug-bpe
model "the local layers' rotary scaling" gemma3 gemma query_pre_attn_scalar=16 \
    rope_parameters="$(scaled sliding_attention linear full_attention)"
model 'this activation' granite smollm hidden_act='"gelu_pytorch_tanh"'
model 'dynamic rotary scaling' granite smollm rope_theta=null \
    rope_parameters='{"rope_type":"dynamic","factor":4,"rope_theta":100}'
model 'a head_dim other than hidden_size / num_attention_heads' olmo2-biases smaug-bpe
# random WHAT KIND: the same of a model of make_random_model.py.
random() {
    run 0 python3 "$tools/make_random_model.py" "$2" "$DATA/demo-model" "$2"
    run 0 matquant quantize "$2" -o "$2-master" --recipe rtn --group-size 32 -q
    run 2 matquant slice "$2-master" -o no.gguf --bits 4 --format gguf
    expect_one_error "^matquant: llama\\.cpp has not $1; use --format safetensors or mlx\$"
}
random 'a head_dim other than hidden_size / num_attention_heads for qwen2' qwen2-heads
random 'embeddings that are the head \(tie_word_embeddings\) for olmo2' olmo2-tied
model "llama3's rotary scaling" olmo2 smaug-bpe rope_theta=null rope_parameters="$llama3"
# Of Gemma 2 llama.cpp caps everything, and not all versions have windows in other layers than every second.
gelu='hidden_activation="gelu_pytorch_tanh"'
model 'this query_pre_attn_scalar' gemma2 gemma
model 'attention without attn_logit_softcapping' gemma2-attention-uncapped gemma query_pre_attn_scalar=16
model 'logits without final_logit_softcapping' gemma2-logits-uncapped gemma query_pre_attn_scalar=16
model 'this activation' gemma2-own-head gemma query_pre_attn_scalar=16
model 'a head beside the embeddings \(tie_word_embeddings\)' gemma2-own-head gemma query_pre_attn_scalar=16 "$gelu"
for types in '"full_attention","sliding_attention","full_attention"' '"full_attention","full_attention","full_attention"'; do
    model 'windows in these layers \(until September 2026 every second has one\)' gemma2 gemma query_pre_attn_scalar=16 "layer_types=[$types]"
done
model "llama3's rotary scaling" gemma2 gemma query_pre_attn_scalar=16 rope_parameters="$llama3"

# tokenizer WHAT MODEL KIND CHANGE
tokenizer() {
    change_tokenizer=$4
    refuses 2 "tokenizer\\.json: $1 has no counterpart in GGUF; use --format safetensors or mlx" "$2" "$3"
}
tokenizer 'no pre_tokenizer' llama gpt-2 't["pre_tokenizer"] = None'
tokenizer 'this pre_tokenizer' llama gpt-2 't["pre_tokenizer"]["add_prefix_space"] = True'
tokenizer 'this pre_tokenizer' llama gpt-2 't["model"]["ignore_merges"] = True'
tokenizer 'this pre_tokenizer' llama dolma2 't["pre_tokenizer"]["pretokenizers"][0]["invert"] = False'
tokenizer 'this pre_tokenizer' llama dolma2 't["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Contiguous"'
tokenizer 'this pre_tokenizer' llama llama2 't["pre_tokenizer"] = {"type": "Whitespace"}'
tokenizer 'this pre_tokenizer' llama llama-v5 't["pre_tokenizer"]["split"] = True'
tokenizer 'this pre_tokenizer' llama llama-v5 't["pre_tokenizer"]["replacement"] = "_"'
tokenizer 'this pre_tokenizer' llama llama-v5 't["pre_tokenizer"]["prepend_scheme"] = "last"'
tokenizer 'this normalizer' llama llama-v5 't["normalizer"] = {"type": "NFC"}'
tokenizer 'this normalizer' llama gpt-2 't["normalizer"] = {"type": "NFC"}'
tokenizer 'this normalizer' llama llama2 't["normalizer"] = {"type": "NFC"}'
tokenizer 'a merge that is not two tokens' llama gpt-2 't["model"]["merges"][1] = "ab"'
tokenizer 'a merge that is not two tokens' llama gpt-2 't["model"]["merges"][1] = "a b c"'
tokenizer 'a merge that is not two tokens' llama llama2 't["model"]["merges"][1] = ["a"]'
tokenizer 'a merge that is not two tokens' llama llama2 't["model"]["merges"][1] = ["a", "b", "c"]'
tokenizer 'a model that is no byte-pair encoding' llama gpt-2 't["model"]["type"] = "Unigram"'

# A token beside every text that nothing names, where llama.cpp would take some other.
change_tokenizer='t["post_processor"] = None'
golden_master llama gpt-2 bos_token_id=null
printf '{"add_bos_token": true, "bos_token": null}' >master/tokenizer_config.json
unnamed='master/tokenizer_config\.json: add_bos_token is set, but neither bos_token here nor bos_token_id in config\.json names a'
run 3 matquant slice master -o no.gguf --bits 4 --format gguf --dtype f32
expect_one_error "^matquant: $unnamed token of the vocabulary\$"
printf abc >text.txt
run 3 matquant eval master --bits 4 --text text.txt --seq-len 2 --windows 1
expect_err "^matquant: $unnamed token of the vocabulary\$" # as eval says
change_tokenizer='t["post_processor"]["single"].append({"SpecialToken": {"id": "<end>", "type_id": 0}})'
refuses 3 'master/tokenizer\.json: post_processor: "<end>" is not in the vocabulary' llama gpt-2 eos_token_id=null
change_tokenizer='t["post_processor"]["single"][0]["SpecialToken"]["id"] = "<begin>"'
refuses 3 'master/tokenizer\.json: post_processor: "<begin>" is not in the vocabulary' llama gpt-2 bos_token_id=null

# Tokens that the embeddings have no row for: an added one is left out, as Gemma 3's for images has to be.
change_tokenizer='t["model"]["vocab"]["far"] = 1 << 40'
refuses 3 'master/tokenizer\.json: the token "far" has an id that is none of the [0-9]* rows of the embeddings' llama gpt-2
change_tokenizer='t["added_tokens"].append(dict(t["added_tokens"][0], id=64, content="<image>"))'
golden_master llama gpt-2
run 0 matquant slice master -o out.gguf --bits 4 --format gguf --dtype f32
expect_err '^matquant: warning: tokenizer\.json: the added token "<image>" \(id 64\) is left out: the embeddings have 64 rows$'
! grep -q '<image>' out.gguf || fail "it is there all the same"

# Tokens whose ids or spellings are not their own: llama.cpp ends the program that loads such a file.
# mistaken REGEX KIND CHANGE: `v` is the vocabulary, add(TEXT, ID) adds a user-defined token.
mistaken() {
    change_tokenizer='v = t["model"]["vocab"]
def add(text, id): t["added_tokens"].append(dict(t["added_tokens"][0], id=id, content=text, special=False))
'$3
    refuses 3 "master/tokenizer\\.json: $1" llama "$2"
}
for kind in gpt-2 llama2; do
    mistaken 'the token "ab" is there twice, with the ids [0-9]* and [0-9]*, which llama\.cpp does not load' $kind \
        'add("ab", v.pop("A"))'
    mistaken 'two tokens, "A" and "B", have the id [0-9]*' $kind 'v["B"] = v["A"]'
    mistaken 'two tokens, "A" and "<more>", have the id [0-9]*' $kind 'add("<more>", v["A"])'
    mistaken 'the token "A" has an id that is none of the 64 rows of the embeddings' $kind 'v["A"] = 4.5'
done
mistaken 'the tokens "  " \(id 40\) and "▁▁" \(id 41\) are both "  " in GGUF, which llama\.cpp does not load; use .* mlx' \
    llama2 'v = {text: id for text, id in v.items() if id not in (40, 41)}; v["  "] = 40; add("▁▁", 41); t["model"]["vocab"] = v'
