# needs: master
# eval --reference: a model compared with itself, with another tokenizer, with what is no plain model.
. "$CLI/shared.sh"
number() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
measure="--text $DATA/demo-eval.txt --seq-len 64 --windows 3"
run 0 matquant eval "$model" --reference "$model" $measure --json -q
expect_no_err
stdout | python3 -c 'import json, sys
d = json.load(sys.stdin)
assert abs(d["kl"]) < 1e-5 and d["top1_agreement"] == 1, d
assert abs(d["perplexity"] / d["reference_perplexity"] - 1) < 1e-5, d
assert d["windows"] == 3 and d["tokens"] == 3 * 63, d'

# Fewer bits are further away from the reference.
run 0 matquant eval "$FIXTURES/master/m" --bits 4 --reference "$model" $measure --json -q
four=$(stdout | number kl)
run 0 matquant eval "$FIXTURES/master/m" --bits 2 --reference "$model" $measure --json -q
two=$(stdout | number kl)
python3 -c 'import sys; assert 0 < float(sys.argv[1]) < float(sys.argv[2])' "$four" "$two" || fail "KL $four, $two"

# Another tokenizer is no error, but it is said.
cp -r "$model" other
echo >>other/tokenizer.json
run 0 matquant eval "$model" --reference other $measure -q
expect_err '^matquant: warning: other: tokenizer.json differs'

run 3 matquant eval "$model" --reference "$FIXTURES/master/m" $measure -q
expect_one_error '^matquant: .*config.json: .*already quantized.*'
run 3 matquant eval "$model" --reference nobody/nothing $measure -q
expect_one_error '^matquant: nobody/nothing: there is no such folder.*nothing is downloaded.*'
run 3 matquant eval "$model" --reference "$GOLDEN/models/llama" $measure -q
expect_one_error '^matquant: .*/models/llama/config.json: .*vocabulary of 64 tokens, the model one of 1024$'

# Windows of fewer tokens than the text has; of more than the model has positions.
run 3 matquant eval "$model" --text "$DATA/demo-eval.txt" --seq-len 100000 -q
expect_err '^matquant: .*demo-eval.txt: '
run 0 matquant eval "$model" --text "$DATA/demo-eval.txt" --seq-len 1025 --windows 1 -q
expect_err '^matquant: warning: windows of 1025 tokens are longer than the model.s 1024 positions$'
