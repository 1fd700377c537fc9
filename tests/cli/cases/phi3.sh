# cost: 4
# Phi-3 and Phi-4-mini: slices in every format, what readers have not of longrope, and sequences longer than it was made for.
. "$CLI/shared.sh"
for kind in phi3 phi4-mini; do
    run 0 python3 "$tools/make_random_model.py" $kind "$model" $kind
    run 0 matquant quantize $kind -o $kind-master --recipe rtn --group-size 32 -q
    run 0 matquant verify $kind-master --against $kind
    run 0 matquant slice $kind-master -o $kind.gguf --bits 4 --format gguf
    run 0 python3 "$tools/read_gguf.py" $kind-master $kind.gguf 4
    case $kind in
    phi3) expect_out '^phi3, tokenizer gpt2 .*, rope default$' ;;
    *) expect_out '^phi3, tokenizer gpt2 .*, rope longrope$' ;;
    esac
    for format in gptq compressed-tensors; do
        run 0 matquant slice $kind-master -o $kind-$format --bits 4 --format $format -q
        run 0 python3 "$tools/read_integer.py" $kind-master $kind-$format 4
    done
    run 0 matquant slice $kind-master -o $kind-mlx --bits 4
    case $kind in
    phi3) expect_no_err ;;
    *) expect_err "^matquant: warning: mlx-lm has not longrope's short factors \(it goes by the long ones\) for Phi3ForCausalLM: .*" ;;
    esac
    run 0 python3 "$tools/read_mlx.py" $kind-master $kind-mlx 4
    run 0 matquant verify $kind-mlx --against $kind
    run 0 matquant slice $kind-master -o $kind-small --bits 4 --format matquant -q
    run 0 matquant verify $kind-small --against $kind
done

# What longrope was called before, also beside its name: slices say what all of their programs read.
for old in 's/"type": "longrope"/"type": "su"/' 's/"type": "longrope"/"rope_type": "yarn"/' \
    's/"type": "longrope"/"type": "su", "rope_type": "longrope"/; s/rope_scaling/rope_parameters/'; do
    rm -rf older && cp -r phi4-mini older
    sed "$old" phi4-mini/config.json >older/config.json
    grep -qE '"(su|yarn)"' older/config.json || fail "nothing is changed by $old"
    run 0 matquant quantize older -o older-master --recipe rtn --group-size 32 -q --force
    run 0 matquant verify older-master --against phi4-mini
    for format in mlx gptq compressed-tensors safetensors matquant; do
        run 0 matquant slice older-master -o older-slice --bits 4 --format $format --force -q
        ! grep -E '"(su|yarn)"' older-slice/config.json || fail "$format has another name"
        grep -qE '"(rope_)?type": *"longrope"' older-slice/config.json || fail "$format has no longrope"
    done
done

# GPTQ's reader takes gate and up apart, whether they are quantized or not, and of what width.
run 0 matquant slice phi3-master -o mixed --bits 4 --format gptq --layer-bits 'layers.1.*gate_up=8' -q
run 0 python3 "$tools/read_integer.py" phi3-master mixed 4 'layers.1.*gate_up=8'
run 0 matquant quantize phi3 -o some --recipe rtn --group-size 32 --exclude 'layers.0.*gate_up' -q
run 0 matquant slice some -o some-gptq --bits 4 --format gptq -q
run 0 python3 "$tools/read_integer.py" some some-gptq 4

# What is not the model's it leaves whole, however the name ends and whatever the shape.
python3 - <<'PY'
import json, struct
end = ".mlp.gate_up_proj.weight"
foreign = {"draft" + end: [2, 8], "scalar" + end: [], "none" + end: [0, 8], "model.layers.7" + end: [2, 8]}
with open("phi3/model.safetensors", "rb") as file:
    (length,) = struct.unpack("<Q", file.read(8))
    header, data = json.loads(file.read(length)), file.read()
for name, shape in foreign.items():
    more = struct.pack("<f", 1.5) * (shape[0] * shape[1] if shape else 1)
    header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(more)]}
    data += more
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
with open("phi3/model.safetensors", "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text + data)
PY
run 0 matquant quantize phi3 -o foreign --recipe rtn --group-size 32 -q
run 0 matquant slice foreign -o foreign-gptq --bits 4 --format gptq -q
run 0 python3 "$tools/read_integer.py" foreign foreign-gptq 4

# llama.cpp takes from the name whether white space after special tokens is dropped, and wants some tokens then.
# named EXPECTED MASTER: general.name
named() {
    run 0 matquant slice "$2" -o named.gguf --bits 4 --format gguf --force
    found=$(python3 -c 'import struct
data, key = open("named.gguf", "rb").read(), b"general.name"
at = data.index(key) + len(key)
kind, length = struct.unpack_from("<IQ", data, at)
assert kind == 8
print(data[at + 12:at + 12 + length].decode())')
    [ "$found" = "$1" ] || fail "named $found, not $1"
}
named 'phi 3-master' phi3-master
cp -r phi4-mini-master My-PHI-3.5-and-phi3
named 'My-PHI 3.5-and-phi 3' My-PHI-3.5-and-phi3
python3 - <<'PY'
import json
for folder in "phi3-master", "phi4-mini-master":
    path = folder + "/tokenizer.json"
    tokenizer = json.load(open(path))
    vocab = tokenizer["model"]["vocab"]
    there = {token["content"] for token in tokenizer["added_tokens"]}
    spare = [text for text, id in vocab.items() if text not in there and id > 700]
    for text in {"</s>", "<unk>", "<s>", "<|endoftext|>"} - there:
        id = vocab.pop(spare.pop())
        tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "content": text, "id": id})
    tokenizer["model"]["merges"] = [merge for merge in tokenizer["model"]["merges"] if "".join(merge).replace(" ", "") in vocab
                                    and all(part in vocab for part in (merge.split(" ") if isinstance(merge, str) else merge))]
    next(token for token in tokenizer["added_tokens"] if token["content"] == "</s>")["rstrip"] = True
    json.dump(tokenizer, open(path, "w"))
PY
named 'phi3-master' phi3-master
named 'Phi-3 phi4-mini-master' phi4-mini-master

# Beyond the original length every position would rotate by other factors.
longer='sequences of 2049 tokens are longer than the 2048 that the model was made for \(original_max_position_embeddings\); .*'
run 2 matquant eval phi4-mini --text "$DATA/demo-eval.txt" --windows 1 --seq-len 2049
expect_err "^matquant: $longer"
run 0 matquant eval phi4-mini --text "$DATA/demo-eval.txt" --windows 1 --seq-len 2048
run 2 matquant quantize phi4-mini -o no --calib "$DATA/demo-calib.jsonl.gz" --seq-len 2049 -q
expect_one_error "^matquant: $longer"
