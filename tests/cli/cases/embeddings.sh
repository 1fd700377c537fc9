# cost: 23
# --embeddings: the embedding matrix and the head on the grid of everything else, in every verb and format.
. "$CLI/shared.sh"
model=$short_model
perplexity() {
    run 0 matquant eval "$@" --text "$DATA/demo-eval.txt" --seq-len 64 --windows 6 --json
    stdout | python3 -c 'import json, sys; print(json.load(sys.stdin)["nll"])'
}

# Nested: no fewer than 4 bits. Learned on, refitted, whole.
run 0 matquant quantize "$model" -o m $small --refit --embeddings nested -q
expect_out '^quantized +22 tensors'
run 0 matquant verify m --against "$model"
expect_out '^problems +0$'
run 0 matquant inspect m
expect_out '^tensors +[0-9]+, of which quantized 22$'
expect_out '^embeddings +quantized, 4 bits or more$'
python3 - m <<'PY' || fail "the wrong tensors"
import json, struct, sys
config = json.load(open(sys.argv[1] + "/config.json"))["quantization_config"]
assert config["embeddings"] == {"min_bits": 4, "layers": ["model.embed_tokens"]}, config
with open(sys.argv[1] + "/model.safetensors", "rb") as file:
    (length,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(length))
names = sorted(name for name in header if name.startswith("model.embed_tokens"))
assert names == ["model.embed_tokens." + end for end in
                 ["biases.w%d" % w for w in range(4, 9)] + ["codes"] + ["scales.w%d" % w for w in range(4, 9)]], names
PY

# Slices are the master at their width; readers of their own find the same numbers.
for bits in 8 4 2; do
    run 0 matquant slice m -o mlx-$bits --bits $bits
    expect_out "^format's error +none: the weights are exactly the slice's$"
    run 0 python3 "$tools/read_mlx.py" m mlx-$bits $bits
    run 0 matquant slice m -o own-$bits --bits $bits --format matquant
    run 0 matquant verify own-$bits --against "$model"
    run 0 matquant verify mlx-$bits --against "$model"
    [ "$(perplexity m --bits $bits)" = "$(perplexity mlx-$bits)" ] || fail "the slice of $bits bits is another model"
    [ "$(perplexity m --bits $bits)" = "$(perplexity own-$bits)" ] || fail "own-$bits is another model"
    run 0 matquant slice m -o f32-$bits --bits $bits --format safetensors --dtype f32
    run 0 python3 "$tools/read_plain.py" m f32-$bits $bits F32
    run 0 matquant slice m -o $bits.gguf --bits $bits --format gguf -q
    run 0 python3 "$tools/read_gguf.py" m $bits.gguf $bits $([ $bits != 2 ] || echo .=4) # its rows fit no Q2_K
    run 0 matquant slice m -o gptq-$bits --bits $bits --format gptq
    expect_err 'GPTQ has groups of tokens in embeddings, .*: model\.embed_tokens\.weight is stored dequantized, in BF16$'
    run 0 python3 "$tools/read_integer.py" m gptq-$bits $bits
    expect_out '^0 of embedding and head packed$'
done
run 0 matquant slice m -o ct-4 --bits 4 --format compressed-tensors
! grep -q 'stored dequantized' "$TMPDIR/stderr" || fail "the embedding is not packed"
run 0 python3 "$tools/read_integer.py" m ct-4 4
expect_out '^1 of embedding and head packed$'
run 0 matquant slice m -o ct-3 --bits 3 --format compressed-tensors
expect_err 'compressed-tensors know one width in a model: model\.embed_tokens\.weight is stored dequantized, in BF16$'
run 0 python3 "$tools/read_integer.py" m ct-3 3
expect_out '^0 of embedding and head packed$'
run 0 matquant inspect m --json
stdout >master.json
run 0 matquant inspect mlx-2 --json
stdout >slice.json
python3 - <<'PY' || fail "inspect says another size than the slice has"
import json
master, cut = json.load(open("master.json")), json.load(open("slice.json"))
of_width = {entry["bits"]: entry for entry in master["widths"]}
assert of_width[2]["bytes"] == cut["widths"][0]["bytes"], (of_width[2], cut["widths"])
assert master["embedding_bits"] == 4
PY

# Their scales are bfloat16 in MLX's format, which computes in that type then; but not of a model of float16, nor where a
# master has numbers that bfloat16 has not.
pairs_are() {
    python3 - "$tools" "$1" "$2" <<'PY' || fail "$1: other types of scales"
import sys
sys.path.insert(0, sys.argv[1])
from checkpoint import read_tensors
types = {tensor[0] for name, tensor in read_tensors(sys.argv[2]).items()
         if name in ("model.embed_tokens.scales", "model.embed_tokens.biases")}
assert types == {sys.argv[3]}, types
PY
}
pairs_are mlx-8 BF16
run 0 matquant slice m -o of-f16 --bits 8 --format safetensors --dtype f16
run 0 matquant quantize of-f16 -o mf --recipe rtn --group-size 32 --embeddings nested -q
run 0 matquant slice mf -o mlx-f16 --bits 4
run 0 python3 "$tools/read_mlx.py" mf mlx-f16 4
pairs_are mlx-f16 F16
cp -r m finer
python3 - <<'PY'
import json, struct
with open("finer/model.safetensors", "r+b") as file:
    (length,) = struct.unpack("<Q", file.read(8))
    begin, _ = json.loads(file.read(length))["model.embed_tokens.scales.w4"]["data_offsets"]
    file.seek(8 + length + begin)
    number = file.read(1)[0]
    file.seek(-1, 1)
    file.write(bytes([number | 1]))
PY
run 0 matquant slice finer -o mlx-finer --bits 4
run 0 python3 "$tools/read_mlx.py" finer mlx-finer 4
pairs_are mlx-finer F16

# 8 bits at every width; with a symmetric zero point, and with rounded slices.
# What follows is said, and a matrix has a line of its own when it is done: the rows come in several parts.
run 0 matquant quantize "$model" -o m8 --recipe rtn --group-size 32 --embeddings 8
expect_err '^embeddings 100\.0 %, then round: model\.embed_tokens\.weight$'
[ "$(grep -c '^embeddings' "$TMPDIR/stderr")" -eq 1 ] || fail "more than one line"
run 0 matquant slice m8 -o mlx8-2 --bits 2
run 0 python3 "$tools/read_mlx.py" m8 mlx8-2 2
run 0 matquant quantize "$model" -o ms $small --zero-point symmetric --embeddings nested --embeddings-min-bits 3 -q
run 0 matquant verify ms --against "$model"
run 0 matquant slice ms -o ms-4.gguf --bits 4 --format gguf
expect_out "^format's error +none: the weights are exactly the slice's$"
run 0 python3 "$tools/read_gguf.py" ms ms-4.gguf 4
run 0 matquant slice ms -o ms-ct --bits 3 --format compressed-tensors
expect_out "^format's error +none: the weights are exactly the slice's$"
run 0 python3 "$tools/read_integer.py" ms ms-ct 3
expect_out 'relative squared error 0$'
expect_out '^1 of embedding and head packed$'
run 0 matquant quantize "$model" -o mr $small --recipe paper --embeddings nested -q
run 0 matquant verify mr --against "$model"

# A head of its own is quantized, too.
run 0 matquant quantize "$GOLDEN/models/llama" -o untied --recipe rtn --group-size 8 --embeddings nested -q
run 0 matquant verify untied --against "$GOLDEN/models/llama"
expect_out '^problems +0$'
run 0 matquant slice untied -o untied-3 --bits 3 --format matquant
run 0 matquant verify untied-3 --against "$GOLDEN/models/llama"
python3 -c '
import json
for folder, bits in ("untied", 4), ("untied-3", 4):
    found = json.load(open(folder + "/config.json"))["quantization_config"]["embeddings"]
    assert found["min_bits"] == bits and sorted(found["layers"]) == ["lm_head", "model.embed_tokens"], found' || fail "the head is missing"

# GPTQ and compressed-tensors pack it, GPTQ with bits of its own.
run 0 matquant quantize "$GOLDEN/models/llama" -o own-head --recipe rtn --group-size 16 --embeddings nested --exclude mlp -q
for bits in 8 4 3 2; do
    run 0 matquant slice own-head -o own-head-gptq-$bits --bits $bits --format gptq
    expect_err 'model\.embed_tokens\.weight is stored dequantized, in F32$'
    run 0 python3 "$tools/read_integer.py" own-head own-head-gptq-$bits $bits
    expect_out '^1 of embedding and head packed$'
    packed=2
    [ $bits -ge 4 ] || packed=0
    run 0 matquant slice own-head -o own-head-ct-$bits --bits $bits --format compressed-tensors
    run 0 python3 "$tools/read_integer.py" own-head own-head-ct-$bits $bits
    expect_out "^$packed of embedding and head packed\$"
done
run 0 matquant slice own-head -o plain-ct --bits 4 --format compressed-tensors --plain-embeddings
run 0 matquant slice own-head -o plain-gptq --bits 4 --format gptq --plain-embeddings
! grep -q 'stored dequantized' "$TMPDIR/stderr" || fail "what was asked for is no surprise"
run 0 python3 "$tools/read_integer.py" own-head plain-ct 4 plain
expect_out '^0 of embedding and head packed$'
run 0 python3 "$tools/read_integer.py" own-head plain-gptq 4 plain
run 2 matquant slice own-head -o no --bits 4 --plain-embeddings
expect_one_error '^matquant: --plain-embeddings is for --format compressed-tensors and gptq$'
run 0 matquant quantize "$GOLDEN/models/llama" -o five --recipe rtn --group-size 16 --embeddings nested \
    --embeddings-min-bits 5 --exclude mlp -q
run 0 matquant slice five -o five-gptq --bits 4 --format gptq
expect_err 'GPTQ packs multiples of 32 numbers both ways, of 2, 3, 4 or 8 bits: lm_head\.weight is stored dequantized, in F32$'
run 0 python3 "$tools/read_integer.py" five five-gptq 4

# What makes no sense is refused; and so is a master whose embeddings are not there.
run 2 matquant quantize "$model" -o no $small --embeddings 8 --embeddings-min-bits 4
expect_err 'embeddings-min-bits wants --embeddings nested'
python3 - <<'PY'
import json
config = json.load(open("m/config.json"))
config["quantization_config"]["embeddings"]["layers"].append("lm_head")
json.dump(config, open("m/config.json", "w"))
PY
run 3 matquant eval m --bits 4 --text "$DATA/demo-eval.txt" --seq-len 64 --windows 1
expect_one_error '^matquant: .*lm_head.* has no codes, though embeddings in config.json names it$'
