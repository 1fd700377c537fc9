# Licence, languages and base model of the source's README.md: kept in the master, and in its slices. What config.json calls itself
# is the base model only where the README.md names none.
. "$CLI/shared.sh"
cp -r "$short_model" source
cat >source/README.md <<'END'
---
license: other
license_name: 'My "own" licence'
license_link: LICENSE
language:
- en
- no
base_model: someone/a-base
pipeline_tag: other-things
model-index:
- name: x
---
# A model
END
header() { sed -n '2,/^---$/p' "$1/README.md" | sed '$d'; }
# quantized CONFIG_NAME: `master` of `source`, whose config.json has this name.
quantized() {
    python3 - "$1" <<'PY'
import json, sys
config = json.load(open("source/config.json"))
json.dump({**config, "_name_or_path": sys.argv[1]}, open("source/config.json", "w"))
PY
    run 0 matquant quantize source -o master --recipe rtn --group-size 32 --force -q
    expect_no_err
}
# rename_master NAME: that of its config.json.
rename_master() {
    python3 - "$1" <<'PY'
import json, sys
config = json.load(open("master/config.json"))
json.dump({**config, "_name_or_path": sys.argv[1]}, open("master/config.json", "w"))
PY
}
quantized someone/a-model
python3 - <<'PY' || fail "the provenance"
import json
card = json.load(open("master/matquant.json"))["model_card"]
assert card == {"license": "other", "license_name": 'My "own" licence', "license_link": "LICENSE",
                "language": ["en", "no"], "base_model": "someone/a-base"}, card
PY
cat >wanted <<'END'
library_name: mlx
pipeline_tag: text-generation
license: "other"
license_name: "My \"own\" licence"
license_link: "LICENSE"
language:
- "en"
- "no"
base_model: "someone/a-base"
tags:
- matquant
- quantized
END
run 0 matquant slice master -o mlx --bits 4 -q
grep -qx -- '- architecture: LlamaForCausalLM, quantized from `a-model`:' mlx/README.md || fail "another name in the text"
header mlx >found
expect_same found wanted
run 0 matquant verify mlx --against source -q
# What mlx-lm computes in, where that is not what the embeddings are stored in.
computes='^Scales and biases of linear layers are float16, which holds them exactly\. Beside embeddings in bfloat16 mlx-lm therefore computes in float32'
grep -Eq "$computes; cut with \`--dtype f16\`, the slice computes in float16 throughout\.\$" mlx/README.md || fail "not what mlx-lm computes in"
for dtype in f16 f32; do
    run 0 matquant slice master -o other --bits 4 --dtype $dtype --force -q
    ! grep -q 'mlx-lm therefore' other/README.md || fail "embeddings in $dtype: what mlx-lm computes in"
done
run 0 matquant slice master -o other --bits 4 --format safetensors --force -q
! grep -q 'mlx-lm therefore' other/README.md || fail "what mlx-lm computes in, where it is not used"
run 0 matquant quantize "$GOLDEN/models/gemma3-images" -o gemma --recipe rtn --group-size 32 --include q_proj --exclude 'layers\.0\.' -q
run 0 matquant slice gemma -o other --bits 4 --force -q
grep -Eq "$computes\.\$" other/README.md || fail "float16 is recommended for Gemma 3"
# A slice of a slice.
run 0 matquant slice master -o own --bits 4 --format matquant -q
run 0 matquant slice own -o again --bits 4 -q
header again >found
expect_same found wanted

# GGUF has them under its own names, and the base model is the card's.
meta() { python3 - "$@" <<'PY'
import os, sys
sys.path.append(os.environ["TOOLS"])
sys.argv = ["read_gguf.py", *sys.argv[1:]]
source = open(os.path.join(os.environ["TOOLS"], "read_gguf.py")).read().rsplit("main()", 1)[0]
exec(compile(source, "read_gguf.py", "exec"))
wanted = ("general.license", "general.languages", "general.base_model")
for key, value in File(sys.argv[1]).meta.items():
    if key.startswith(wanted):
        print(key, ascii(value))
PY
}
export TOOLS="$tools"
run 0 matquant slice master -o slice.gguf --bits 4 -q
cat >wanted.gguf <<'END'
general.license 'other'
general.license.name 'My "own" licence'
general.license.link 'LICENSE'
general.languages ['en', 'no']
general.base_model.count 1
general.base_model.0.name 'a-base'
general.base_model.0.organization 'someone'
general.base_model.0.repo_url 'https://huggingface.co/someone/a-base'
END
meta slice.gguf >found
expect_same found wanted.gguf
run 0 python3 "$tools/read_gguf.py" master slice.gguf 4

# Several licences and bases; whatever a scalar holds, it ends neither its quotes nor the header.
python3 - <<'PY'
import json
value = json.load(open("master/matquant.json"))
value["model_card"] = {"license": ["mit", "apache-2.0"], "language": "de", "license_name": 'a"\\\n---\n\x7f\u0085\u2028\ufeff é',
                       "base_model": ["a/b", "c", 5, "d/e/f"], "license_link": {"a": "b"}}
json.dump(value, open("master/matquant.json", "w"))
PY
rename_master a/b # one of the list
run 0 matquant slice master -o odd --bits 4 -q
cat >wanted <<'END'
library_name: mlx
pipeline_tag: text-generation
license:
- "mit"
- "apache-2.0"
license_name: "a\"\\\u000a---\u000a\u007f\u0085\u2028\ufeff é"
language: "de"
base_model:
- "a/b"
- "c"
- "d/e/f"
tags:
- matquant
- quantized
END
header odd >found
expect_same found wanted
run 0 matquant slice master -o odd.gguf --bits 4 -q
meta odd.gguf >found
cat >wanted.gguf <<'END'
general.license.name 'a"\\\n---\n\x7f\x85\u2028\ufeff \xe9'
general.languages ['de']
general.base_model.count 3
general.base_model.0.name 'b'
general.base_model.0.organization 'a'
general.base_model.0.repo_url 'https://huggingface.co/a/b'
general.base_model.1.name 'c'
general.base_model.2.name 'd/e/f'
END
expect_same found wanted.gguf

# A card that names no base model: what config.json calls itself. No card, and one that is none.
sed -i '/^base_model/d' source/README.md
quantized someone/a-model
run 0 matquant slice master -o mlx --bits 4 --force -q
header mlx >found
grep -qx 'base_model: someone/a-model' found || fail "no base model"
grep -qx 'base_model_relation: quantized' found || fail "no relation"
grep -qx 'license: "other"' found || fail "no licence"
for name in a-model ./a/model /a/model a/b/c ../model a/ ''; do # not of the hub
    rename_master "$name"
    run 0 matquant slice master -o mlx --bits 4 --force -q
    header mlx >found
    ! grep -q base_model found || fail "$name is taken for a name of the hub"
done
for text in '' 'no front matter' '---'; do
    printf '%s' "$text" >source/README.md
    quantized someone/a-model
    ! grep -q model_card master/matquant.json || fail "a card of nothing"
done
# Behind 64 KiB nothing is read.
{ printf -- '---\nlicense: mit\nx: ' && head -c 65536 /dev/zero | tr '\0' x && printf '\n---\n'; } >source/README.md
quantized someone/a-model
! grep -q model_card master/matquant.json || fail "more was read than should be"
rm source/README.md
mkdir source/README.md
quantized someone/a-model
rm -r source/README.md
mkfifo source/README.md
run 0 timeout 60 matquant quantize source -o master --recipe rtn --group-size 32 --force -q
