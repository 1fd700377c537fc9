# cost: 6
# Gemma 3 with images: its language model is quantized and measured like one that is by itself, whichever of the two kinds of
# names its tensors have; what else it has is copied, or left out where a reader has no use for it.
. "$CLI/shared.sh"

# Text as token ids.
python3 -c 'for first in 0, 24: print(*(7 * i % 64 for i in range(first, first + 24)))' | python3 "$tools/write_npy.py" ids.npy

# measured FILE MODEL [--bits R]: its divergence from the source.
measured() {
    file=$1
    shift
    run 0 matquant eval "$@" --text ids.npy --windows 2 --seq-len 24 --reference "$source" --json
    stdout | sed 's/.*"kl"/"kl"/; /"kl"/!d' >"$file"
}
# called FOLDER REGEX: the names of all of its tensors match.
called() {
    python3 -c 'import re, sys
sys.path.append(sys.argv[1])
from checkpoint import read_tensors
wrong = [name for name in read_tensors(sys.argv[2]) if not re.match(sys.argv[3], name)]
sys.exit("\n".join(wrong) or 0)' "$tools" "$1" "$2" || fail "names in $1"
}
# sliced FORMAT [OPTION...]: the slice of 4 bits, as `slice`, in one line of stderr at most; whether its card says that it reads
# images.
sliced() {
    format=$1
    shift
    rm -rf slice
    run 0 matquant slice master -o slice --bits 4 --format $format "$@"
    [ "$(wc -l <"$TMPDIR/stderr")" -le 1 ] || fail "more than one warning"
    case $format in
    mlx) task=text-generation ;;
    *) task=image-text-to-text ;;
    esac
    grep -qx "pipeline_tag: $task" slice/README.md || fail "the card of $format has another task than $task"
}
left_out='^matquant: warning: the slice is the language model alone, without 23 tensors of other parts \(.*, \.\.\.\): '

for name in gemma3-images gemma3-images-v5; do
    source=$GOLDEN/models/$name
    case $name in
    *-v5) own='(model\.|lm_head\.weight$)' ;;
    *) own='(language_model\.model\.|vision_tower\.|multi_modal_projector\.)' ;;
    esac
    rm -rf master
    # q_proj is the one of whose sides 32 divides both, as GPTQ packs.
    run 0 matquant quantize "$source" -o master --recipe rtn --group-size 32 --zero-point symmetric --include q_proj \
        --exclude 'layers\.0\.'
    expect_err 'warning: .* has no tokenizer\.json'
    [ "$(grep -c 'warning:' "$TMPDIR/stderr")" = 1 ] || fail "$name: not one warning"
    run 0 matquant verify master --against "$source"
    run 0 matquant inspect master
    expect_out '^architecture +Gemma3ForConditionalGeneration$'
    measured itself "$source"
    grep -q '"kl":[[:space:]]*0' itself || fail "$name is not itself: $(cat itself)"
    measured whole master --bits 4
    grep -q '"kl":.*[1-9]' whole || fail "no divergence"
    called master "$own"

    # Slices that eval reads.
    for format in mlx matquant safetensors; do
        case $format in
        safetensors) sliced $format --dtype f32 ;;
        *) sliced $format && run 0 matquant verify slice --against "$source" ;;
        esac
        measured part slice
        expect_same part whole
    done
    called slice "$own"
    run 0 python3 "$tools/read_plain.py" master slice 4 F32
    # Without --dtype what is not quantized is the source's, as it is in bfloat16.
    sliced safetensors
    run 0 python3 "$tools/read_plain.py" master slice 4 BF16
    sliced safetensors --dtype f16
    run 0 python3 "$tools/read_plain.py" master slice 4 F16

    # mlx-lm and llama.cpp read the language model.
    for dtype in '' F32; do
        sliced mlx ${dtype:+--dtype f32}
        expect_err "${left_out}mlx-lm reads text only$"
        run 0 python3 "$tools/read_mlx.py" master slice 4 $dtype
        called slice 'language_model\.(model|lm_head)\.'
        run 0 matquant verify slice --against "$source"
    done

    # Readers by transformers' modules.
    sliced compressed-tensors
    run 0 python3 "$tools/read_integer.py" master slice 4
    called slice "$own"
    sliced gptq
    run 0 python3 "$tools/read_integer.py" master slice 4
    called slice '(model\.|lm_head\.)'

    # Not a byte of another part may change.
    python3 - <<'PY'
import json, os
for path in os.listdir("master"):
    if path.endswith(".safetensors"):
        with open("master/" + path, "r+b") as file:
            size = int.from_bytes(file.read(8), "little")
            for tensor, entry in json.loads(file.read(size)).items():
                if tensor.endswith("patch_embedding.bias"):
                    file.seek(8 + size + entry["data_offsets"][0])
                    file.write(b"\x7e")
PY
    run 1 matquant verify master --against "$source"
    expect_err 'vision_tower.*patch_embedding\.bias: at byte [0-9]*: differs from the source'
done

# Embeddings of a width of their own have an entry under the name that mlx-lm's module has.
for name in gemma3-images gemma3-images-v5; do
    source=$GOLDEN/models/$name
    rm -rf master
    run 0 matquant quantize "$source" -o master --recipe rtn --group-size 32 --include q_proj --embeddings nested -q
    rm -rf slice
    run 0 matquant slice master -o slice --bits 2
    run 0 python3 "$tools/read_mlx.py" master slice 2
    grep -q '"language_model.model.embed_tokens":' slice/config.json || fail "no entry for the embeddings"
    run 0 matquant verify slice --against "$source"
    measured part slice
    measured whole master --bits 2
    expect_same part whole
done

# The norms that a refit changed are known for such by the names that they have in the slice, also in one of a slice.
for name in gemma3-images gemma3-images-v5; do
    source=$GOLDEN/models/$name
    rm -rf master own
    run 0 matquant quantize "$source" -o master --calib ids.npy --samples 1 --seq-len 24 --epochs 1 --no-extend --group-size 32 \
        --include q_proj --refit-bits 4 --gemm openblas -q
    run 0 matquant slice master -o own --bits 4 --format matquant -q
    for from in master own; do
        rm -rf slice
        run 0 matquant slice $from -o slice --bits 4 -q
        run 0 matquant verify slice --against "$source"
        python3 -c 'import json; print(*json.load(open("slice/matquant.json"))["slice"]["private"])' >private-$from
    done
    grep -q norm private-own || fail "no norm is private"
    expect_same private-master private-own
done

# What config.json says of the language model is compared member by member.
change_config() {
    python3 -c 'import json, sys
config = json.load(open("slice/config.json"))
exec(sys.argv[1])
json.dump(config, open("slice/config.json", "w"))' "$1"
}
differs() {
    cp slice/config.json config.json
    change_config "$1"
    run 1 matquant verify slice --against "$source"
    expect_err "config\.json: $2"
    cp config.json slice
}
differs 'config["text_config"]["rms_norm_eps"] = 1e-5' 'differs from the source.s in "rms_norm_eps"'
differs 'config["text_config"]["initializer_range"] = 1' 'differs from the source.s in "initializer_range"'
differs 'config["vision_config"]["patch_size"] = 1' 'differs from the source.s in "vision_config"'
differs 'config["vocab_size"] = 63' 'vocab_size is 63, but 64 in text_config'

# GGUF: the same metadata and tensors as of the language model by itself.
for name in gemma3-images gemma3-images-v5; do
    golden_master $name gemma
    python3 -c 'import json
config = json.load(open("master/config.json"))
config["text_config"]["query_pre_attn_scalar"] = config["text_config"]["head_dim"]
json.dump(config, open("master/config.json", "w"))'
    rm -f out.gguf
    run 0 matquant slice master -o out.gguf --bits 4 --dtype f32
    expect_err "${left_out}llama\.cpp reads images by a file of their own, which its convert_hf_to_gguf\.py --mmproj makes of the source$"
    [ "$(grep -c 'warning:' "$TMPDIR/stderr")" = 1 ] || fail "$name: not one warning"
    run 0 python3 "$tools/read_gguf.py" master out.gguf 4
    case $name in
    *-v5) expect_out '^gemma3, tokenizer llama default, rope default$' ;;
    *) expect_out '^gemma3, tokenizer llama default, rope linear$' ;;
    esac
done
