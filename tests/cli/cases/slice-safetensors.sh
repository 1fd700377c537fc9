# needs: master
# Plain weights: the numbers of the slice, rounded once to the element type; in f32 the model that eval measures.
. "$CLI/shared.sh"
master=$FIXTURES/master/m
for type in bf16 f16 f32; do
    run 0 matquant slice "$master" -o "$type" --bits 3 --format safetensors --dtype $type --max-shard-size 500K
    expect_exists "$type/model.safetensors.index.json"
    run 0 python3 "$tools/read_plain.py" "$master" "$type" 3 "$(echo $type | tr a-z A-Z)"
    expect_out '^[1-9][0-9]* weights and [1-9][0-9]* other tensors are the same$'
done
run 1 python3 "$tools/read_plain.py" "$master" f16 4 F16
expect_err '^read_plain\.py: README\.md does not say what this is$'

# The source's own type unless another is named; what rounding costs is said, and nothing where it costs nothing.
run 0 matquant slice "$master" -o own --bits 4 --format safetensors --json
expect_out '"relative_error":.*[1-9]'
expect_out '"tensor":.*"model.layers.0.mlp.down_proj.weight"'
run 0 python3 "$tools/read_plain.py" "$master" own 4 BF16
run 0 matquant slice "$master" -o own --bits 4 --format safetensors --dtype f32 --force
expect_out "^format's error +none: the weights are exactly the slice's$"

number() { python3 -c 'import json, sys; d = json.load(sys.stdin); print(*(d[k] for k in sys.argv[1:]))' "$@"; }
run 0 matquant eval "$master" --bits 4 --text "$DATA/demo-eval.txt" --seq-len 64 --windows 4 --json
stdout | number perplexity nll nll_stderr >of-master
run 0 matquant eval own --text "$DATA/demo-eval.txt" --seq-len 64 --windows 4 --json
stdout | number perplexity nll nll_stderr >of-slice
expect_same of-master of-slice

# The master's own format keeps what it has.
run 2 matquant slice "$master" -o no --bits 4 --format matquant --dtype f16
expect_one_error "^matquant: --dtype is not for --format matquant, which keeps the source's element types\$"
expect_only bf16 f16 f32 own of-master of-slice
