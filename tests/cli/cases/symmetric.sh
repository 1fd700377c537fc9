# --zero-point symmetric: what GPTQ, compressed-tensors and GGUF's types without an offset hold is the slice itself.
. "$CLI/shared.sh"
model=$short_model
run 0 matquant quantize "$model" -o m $small --zero-point symmetric -q
run 0 matquant verify m --against "$model"
run 0 matquant inspect m
expect_out '^zero point +symmetric$'
python3 - m <<'PY' || fail "config.json does not say it"
import json, sys
assert json.load(open(sys.argv[1] + "/config.json"))["quantization_config"]["zero_point"] == "symmetric"
PY

# Not one weight changes, by a reader of its own.
for slice in gptq:8 gptq:4 gptq:3 gptq:2 compressed-tensors:8 compressed-tensors:6 compressed-tensors:5 compressed-tensors:4 \
    compressed-tensors:3 compressed-tensors:2; do
    format=${slice%:*} bits=${slice#*:}
    run 0 matquant slice m -o $format-$bits --bits $bits --format $format
    expect_out "^format's error +none: the weights are exactly the slice's$"
    run 0 python3 "$tools/read_integer.py" m $format-$bits $bits
    expect_out 'relative squared error 0$'
done
for bits in 8 5 4; do
    run 0 matquant slice m -o m-$bits.gguf --bits $bits --format gguf
    expect_out "^format's error +none: the weights are exactly the slice's$"
    run 0 python3 "$tools/read_gguf.py" m m-$bits.gguf $bits
    [ $bits != 8 ] || expect_out '^[1-9][0-9]* numbers are the same$'
done

run 0 matquant slice m -o own --bits 4 --format matquant
run 0 matquant verify own

# The refit trains scales and leaves the zero points where they are.
run 0 matquant quantize "$model" -o refitted $small --zero-point symmetric --refit -q
run 0 matquant verify refitted --against "$model"
run 0 matquant slice refitted -o refitted-gptq --bits 2 --format gptq
expect_out "^format's error +none: the weights are exactly the slice's$"

# A master that says so but is not is sliced into nothing, in whatever format.
# patched NAME TENSOR HEX: a copy of the master whose tensor begins with these bytes
patched() {
    cp -r m "$1"
    python3 - "$1/model.safetensors" "$2" "$3" <<'PY'
import json, struct, sys
with open(sys.argv[1], "r+b") as file:
    (length,) = struct.unpack("<Q", file.read(8))
    begin, _ = json.loads(file.read(length))[sys.argv[2]]["data_offsets"]
    file.seek(8 + length + begin)
    file.write(bytes.fromhex(sys.argv[3]))
PY
}
layer=model.layers.1.mlp.up_proj
patched moved $layer.biases.w4 0000
for format in mlx gptq compressed-tensors matquant; do
    run 3 matquant slice moved -o no --bits 4 --format $format
    expect_one_error "^matquant: moved.*$layer\.biases\.w4: row 0, group 0: the zero point is symmetric, but .*"
done
run 3 matquant slice moved -o no.gguf --bits 4 --format gguf
run 0 matquant slice moved -o other --bits 2 -q
patched zeroed $layer.codes 00
run 3 matquant slice zeroed -o no.gguf --bits 8 --format gguf
expect_one_error "^matquant: zeroed.*$layer\.codes: .*a code is 0, which a symmetric zero point leaves out"
run 0 matquant slice zeroed -o other --bits 4 -q --force

# Every recipe; and what contradicts it is refused.
run 0 matquant quantize "$model" -o rtn --recipe rtn --group-size 32 --zero-point symmetric -q
run 0 matquant verify rtn
run 0 matquant quantize "$model" -o paper $small --recipe paper --zero-point symmetric -q
run 0 matquant verify paper
run 2 matquant quantize "$model" -o no $small --zero-point symmetric --slice-rule top
expect_one_error '^matquant: --zero-point symmetric wants --slice-rule round'
run 2 matquant quantize "$model" -o no $small --recipe paper --let --zero-point symmetric
expect_one_error '^matquant: --let wants --zero-point float'
