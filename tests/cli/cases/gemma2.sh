# Gemma 2 of as many layers as its 27B model has: llama.cpp scales queries otherwise then, and gptqmodel loads no such model.
. "$CLI/shared.sh"

large='^matquant: warning: gptqmodel does not load quantized models of Gemma2ForCausalLM with more than 42 layers$'
for kind in gemma2 gemma2-deep; do
    run 0 python3 "$tools/make_random_model.py" $kind "$model" $kind
    run 0 matquant quantize $kind -o $kind-master --recipe rtn --group-size 32 -q
    run 0 matquant slice $kind-master -o $kind.gguf --bits 4 --format gguf
    run 0 python3 "$tools/read_gguf.py" $kind-master $kind.gguf 4
    expect_out '^gemma2, tokenizer '
    run 0 matquant slice $kind-master -o $kind-gptq --bits 4 --format gptq
    case $kind in
    *-deep) expect_err "$large" ;;
    *) ! grep -q 'gptqmodel does not load' "$TMPDIR/stderr" || fail "a warning of a small model" ;;
    esac
done

# The scale that every other Gemma 2 has: of the size of a head.
sed 's/"query_pre_attn_scalar": 16/"query_pre_attn_scalar": 32/' gemma2-deep/config.json >changed
mv changed gemma2-deep/config.json
run 0 matquant quantize gemma2-deep -o gemma2-deep-master --recipe rtn --group-size 32 -q --force
run 2 matquant slice gemma2-deep-master -o no.gguf --bits 4 --format gguf
expect_one_error '^matquant: llama\.cpp has not this query_pre_attn_scalar for gemma2; use --format safetensors or mlx$'
