# cost: 5
# --dtype in the formats that pack: the element type of what is not quantized, read back by programs that share no code with
# ours; and what is said of a source in float32.
. "$CLI/shared.sh"
source=$GOLDEN/models/llama # in float32, with a head of its own
large='^matquant: warning: [0-9.]+ % of the slice.s bytes are float32, as the source is; --dtype bf16 halves them$'

# type_of f16: F16
type_of() { echo "$1" | tr a-z A-Z; }
# says_so: once.
says_so() {
    [ "$(grep -Ec -e "$1" "$TMPDIR/stderr")" = 1 ] || fail "not one line of stderr matches: $1"
}
# says_nothing: of float32.
says_nothing() {
    ! grep -q 'float32' "$TMPDIR/stderr" || fail "a warning without a reason"
}

# put_number FOLDER TENSOR NUMBER: in place of the float32 tensor's first.
put_number() {
    python3 - "$@" <<'PY'
import json, struct, sys
with open(sys.argv[1] + "/model.safetensors", "r+b") as file:
    (length,) = struct.unpack("<Q", file.read(8))
    begin, _ = json.loads(file.read(length))[sys.argv[2]]["data_offsets"]
    file.seek(8 + length + begin)
    file.write(struct.pack("<f", float(sys.argv[3])))
PY
}

# MLX: the source's bytes, or numbers rounded once, config.json saying so; verify knows them.
run 0 matquant quantize "$source" -o mlx --recipe rtn --group-size 32 --include "self_attn.[qkv]_" -q
run 0 matquant slice mlx -o mlx-own --bits 4
says_so "$large"
expect_out "^format's error +none: the weights are exactly the slice's$"
run 0 python3 "$tools/read_mlx.py" mlx mlx-own 4
! grep -q '"dtype":[[:space:]]*"[a-z]*[0-9]*"' mlx-own/matquant.json || fail "a dtype that nobody named"
for type in bf16 f16 f32; do
    run 0 matquant slice mlx -o mlx-$type --bits 4 --dtype $type
    says_nothing
    [ $type = f32 ] || expect_out "^format's error +none in what is quantized; other tensors are rounded$"
    ! grep -Eq 'cannot hold|rounded|squared error' mlx-$type/README.md || fail "the card has an error of what is exact"
    run 0 python3 "$tools/read_mlx.py" mlx mlx-$type 4 "$(type_of $type)"
    run 0 matquant verify mlx-$type --against "$source"
    expect_out '^problems +0$'
done
run 1 python3 "$tools/read_mlx.py" mlx mlx-bf16 4
expect_err '^read_mlx\.py: config\.json has something else changed$'
expect_same mlx-own/model.safetensors mlx-f32/model.safetensors
run 0 matquant slice mlx -o report --bits 4 --dtype bf16 --json
expect_out '"tensor":.*"model.embed_tokens.weight"'
expect_out '^[[:space:]]*"relative_error":[[:space:]]*0,$' # of what is quantized
# Half of the bytes that were copied.
sizes=$(python3 - "$tools" <<'PY'
import sys
sys.path.insert(0, sys.argv[1])
from checkpoint import read_tensors
plain = [sum(len(data) for dtype, _, data in read_tensors(folder).values() if dtype == name)
         for folder, name in (("mlx-own", "F32"), ("mlx-bf16", "BF16"))]
print(plain[0] == 2 * plain[1] > 0)
PY
)
[ "$sizes" = True ] || fail "not half"

# Another source is found, and so is one that differs in what the element type keeps.
cp -rL "$source" other
put_number other model.norm.weight 3.0
run 1 matquant verify mlx-bf16 --against other
expect_err 'tensor model\.norm\.weight: at byte [0-9]+: differs from the source.s$'
run 1 matquant verify mlx-own --against other

# Both names of the element type.
cp -r mlx both
python3 - <<'PY'
import json
config = json.load(open("both/config.json"))
config.update(torch_dtype="float32", dtype="float32")
json.dump(config, open("both/config.json", "w"))
PY
run 0 matquant slice both -o both-f16 --bits 4 --dtype f16
python3 -c '
import json
config = json.load(open("both-f16/config.json"))
assert config["dtype"] == config["torch_dtype"] == "float16", config' || fail "not both"

# GPTQ and compressed-tensors: the same, of embeddings that are dequantized and scales, too.
run 0 matquant quantize "$source" -o packed --recipe rtn --group-size 16 --embeddings nested --exclude mlp -q
for format in gptq compressed-tensors; do
    run 0 matquant slice packed -o $format-own --bits 4 --format $format -q
    says_so "$large"
    run 0 python3 "$tools/read_integer.py" packed $format-own 4
    for type in bf16 f16 f32; do
        run 0 matquant slice packed -o $format-$type --bits 4 --format $format --dtype $type --plain-embeddings -q
        says_nothing
        run 0 python3 "$tools/read_integer.py" packed $format-$type 4 plain "$(type_of $type)"
    done
done
run 0 matquant slice packed -o gptq-packed --bits 4 --format gptq --dtype bf16 -q
expect_err 'model\.embed_tokens\.weight is stored dequantized, in BF16$'
run 0 python3 "$tools/read_integer.py" packed gptq-packed 4 BF16

# The error in total is of what is quantized: other tensors that are rounded beside it do not make it smaller.
run 0 matquant quantize "$source" -o kept --recipe rtn --group-size 16 --exclude mlp -q
for type in '' bf16 f16; do
    run 0 matquant slice kept -o kept-$type --bits 3 --format gptq ${type:+--dtype $type} --json -q
    expect_err '^matquant: warning: gptq adds .*'
    stdout | python3 -c 'import json, sys
found = json.load(sys.stdin)
print(found["relative_error"])
print(sum("norm" in entry["tensor"] for entry in found["inexact"]), file=sys.stderr)' >error-$type 2>norms-$type
    expect_same error-$type error-
    grep 'squared error' kept-$type/README.md >card-$type
    expect_same card-$type card-
done
grep -q '^- this format cannot hold the slice.s numbers exactly: relative squared error of the quantized weights [0-9.]' card-f16 ||
    fail "the card: $(cat card-f16)"
[ "$(cat norms-)" = 0 ] && [ "$(cat norms-bf16)" -gt 0 ] || fail "norms that are rounded are not listed"

# Scales of quantized embeddings in MLX follow what is plain.
run 0 matquant quantize "$source" -o nested --recipe rtn --group-size 32 --embeddings nested --include "self_attn.[qkv]_" -q
for type in bf16 f16 f32; do
    run 0 matquant slice nested -o nested-$type --bits 4 --dtype $type -q
    run 0 python3 "$tools/read_mlx.py" nested nested-$type 4 "$(type_of $type)"
done

# Plain weights and GGUF say it as well, and GGUF without a remedy that it has not; matquant's own format does not.
run 0 matquant slice mlx -o plain --bits 4 --format safetensors -q
says_so '^matquant: warning: 100 % of the slice.s bytes are float32, .*; --dtype bf16 halves them, and rounds the weights$'
run 0 matquant slice mlx -o plain-bf16 --bits 4 --format safetensors --dtype bf16 -q
says_nothing
grep -q '^- the slice.s numbers are rounded (--dtype bf16): relative squared error of the quantized weights [0-9.]' \
    plain-bf16/README.md || fail "the card does not say that it is rounded"
python3 -c '
import json
assert json.load(open("plain-bf16/config.json"))["dtype"] == "bfloat16"
assert json.load(open("plain/config.json"))["dtype"] == "float32"' || fail "another type in config.json"
run 0 matquant slice mlx -o own --bits 4 --format matquant -q
says_nothing
golden_master llama gpt-2
run 0 matquant slice master -o own.gguf --bits 4 -q
says_so '^matquant: warning: [0-9.]+ % of the slice.s bytes are matrices in float32, as they are in the source; quantize --embeddings 8 or nested makes embeddings smaller$'
run 0 matquant slice master -o f32.gguf --bits 4 --dtype f32 -q
says_nothing
golden_master llama-tied-bf16 gpt-2
run 0 matquant slice master -o bf16.gguf --bits 4 -q
says_nothing
run 0 matquant quantize "$model" -o sixteen --recipe rtn --group-size 64 -q
run 0 matquant slice sixteen -o sixteen-f32 --bits 4 --dtype f32 -q
says_nothing
expect_out "^format's error +none: the weights are exactly the slice's$"
run 0 python3 "$tools/read_mlx.py" sixteen sixteen-f32 4 F32
perplexity() {
    run 0 matquant eval "$@" --text "$DATA/demo-eval.txt" --seq-len 64 --windows 2 --json
    stdout | python3 -c 'import json, sys; print(json.load(sys.stdin)["nll"])'
}
[ "$(perplexity sixteen --bits 4)" = "$(perplexity sixteen-f32)" ] || fail "another model in float32"

# Norms alone are not worth a word.
run 0 matquant slice sixteen -o wide --bits 8 --format safetensors --dtype f32 -q
rm wide/matquant.json
run 0 matquant quantize wide -o norms --recipe rtn --group-size 64 --embeddings 8 -q
for output in norms-own norms.gguf; do
    run 0 matquant slice norms -o $output --bits 4 -q
    says_nothing
done

# Gemma 2 and 3 in float16, whether it was asked for or the source is.
overflows='^matquant: warning: programs that compute in float16 overflow on Gemma3ForCausalLM; use --dtype bf16$'
says_no_overflow() {
    ! grep -q overflow "$TMPDIR/stderr" || fail "an overflow of what is not float16"
}
gemma="--recipe rtn --group-size 32 --include self_attn.q_ -q"
run 0 matquant quantize "$GOLDEN/models/gemma3" -o gemma $gemma
for format in mlx safetensors gptq compressed-tensors; do
    run 0 matquant slice gemma -o gemma-$format --bits 4 --format $format --dtype f16 -q
    says_so "$overflows"
    run 0 matquant slice gemma -o gemma-$format --bits 4 --format $format --dtype bf16 -q --force
    says_no_overflow
done
run 0 matquant slice gemma -o half --bits 8 --format safetensors --dtype f16 -q
rm half/matquant.json
run 0 matquant quantize half -o gemma-half $gemma
run 0 matquant slice gemma-half -o half-mlx --bits 4 -q
says_so "$overflows"
run 0 matquant slice gemma-half -o half-own --bits 4 --format matquant -q
says_no_overflow
run 0 matquant quantize "$GOLDEN/models/gemma2" -o gemma2 $gemma
run 0 matquant slice gemma2 -o gemma2-f16 --bits 4 --dtype f16 -q
says_so '^matquant: warning: programs that compute in float16 may overflow on Gemma2ForCausalLM; use --dtype bf16$'
run 0 matquant slice gemma2 -o gemma2-own --bits 4 -q
says_no_overflow
run 0 matquant slice mlx -o llama-f16 --bits 4 --dtype f16 -q
says_no_overflow

# A number that float16 cannot hold.
cp -r mlx far
put_number far model.embed_tokens.weight 70000.0
for format in mlx safetensors; do
    run 2 matquant slice far -o no --bits 4 --format $format --dtype f16
    expect_one_error '^matquant: .*model\.embed_tokens\.weight: holds 70000, which F16 cannot; use --dtype bf16 or f32$'
    [ ! -e no ] || fail "no is there"
done
run 0 matquant slice far -o far-bf16 --bits 4 --dtype bf16 -q
