# needs: master
# verify: files beside the tensors, and groups, are what they were.
. "$CLI/shared.sh"
master=$FIXTURES/master/m
problem() { # REGEX OPTION...: one problem, exit status 1
    pattern=$1
    shift
    run 1 matquant verify m -q "$@"
    expect_err "^matquant: warning: m/$pattern"
    expect_out '^problems +1$'
}
fresh() { rm -rf m && cp -r "$master" m; }
fresh
rm m/tokenizer.json
problem 'tokenizer\.json: is missing; the source had one$'
fresh
sed -i 's/"version"/"Version"/' m/tokenizer.json
problem 'tokenizer\.json: is not the source.s: its SHA-256 is not the one in matquant\.json$'
run 1 matquant verify m -q --against "$model"
expect_err '^matquant: warning: m/tokenizer\.json: differs from the source.s$'
fresh
echo '{}' >m/generation_config.json
problem 'generation_config\.json: is not as it was written: its SHA-256 is not the one in matquant\.json$'
problem 'generation_config\.json: differs from the source.s$' --against "$model"
rm m/generation_config.json
problem 'generation_config\.json: is missing; it was written with the tensors$'
problem 'generation_config\.json: is missing; the source has it$' --against "$model"
# What an earlier program copied and today's would not, or the source has no longer: held to its digest, with a source as well.
fresh
cp -rL "$model" large
truncate -s 65M m/data.txt large/data.txt
echo notes >m/notes.txt
python3 - <<'PY'
import hashlib, json
value = json.load(open("m/matquant.json"))
for name in ("data.txt", "notes.txt"):
    value["files"][name] = {"sha256": hashlib.sha256(open("m/" + name, "rb").read()).hexdigest()}
json.dump(value, open("m/matquant.json", "w"))
PY
run 0 matquant verify m -q --against large
for name in data notes; do
    echo x >>m/$name.txt
    problem "$name\.txt: is not as it was written: .*" --against large
    problem "$name\.txt: is not as it was written: .*"
    truncate -s -2 m/$name.txt
done
rm m/data.txt
problem 'data\.txt: is missing; it was written with the tensors$' --against large
rm -r large
# What was added is noticed where it counts, in a slice, too: not the card, a picture's folder or what a program hides.
fresh
run 0 matquant slice "$master" -o s --bits 4 -q
cp -rL "$model" templated
for folder in m s; do
    echo edited >$folder/README.md
    mkdir $folder/figures
    echo '*' >$folder/.gitignore
    run 0 matquant verify $folder -q --against "$model"
    echo '{{ messages }}' | tee $folder/chat_template.jinja >templated/chat_template.jinja
    for against in "" "--against $model"; do
        run 1 matquant verify $folder -q $against
        expect_err "^matquant: warning: $folder/chat_template\.jinja: was not written with the tensors: it is not listed in matquant\.json\$"
        expect_out '^problems +1$'
    done
    run 0 matquant verify $folder -q --against templated # the source's by now
done
rm -r s templated
# Of shards and a whole file only one is read, here; another program may read the other, or both.
fresh
run 0 matquant slice "$master" -o shards --bits 4 --format matquant --max-shard-size 200K -q
run 0 matquant verify shards -q
cp shards/model-00001-of-*.safetensors shards/model-extra.safetensors
run 1 matquant verify shards -q
expect_err '^matquant: warning: shards/model-extra\.safetensors: is not read, but may be .* those of model\.safetensors\.index\.json$'
expect_out '^problems +1$'
rm shards/model-extra.safetensors
run 0 matquant slice "$master" -o whole --bits 4 --format matquant -q
cp whole/model.safetensors shards
run 1 matquant verify shards -q
expect_err '^matquant: warning: shards/model-00001-of-.*\.safetensors: is not read, but may be .* those of model\.safetensors$'
expect_out "^problems +$(ls shards/model-*.safetensors | wc -l)\$"
rm -r shards whole

run 0 matquant slice "$master" -o s --bits 4 -q
run 0 matquant verify s -q --against "$model"
rm s/tokenizer.json
run 1 matquant verify s -q
expect_err '^matquant: warning: s/tokenizer\.json: is missing; the source had one$'

# A header that calls every F16 a BF16: nothing else of the folder is another.
run 0 matquant slice "$master" -o typed --bits 4 -q
count=$(python3 - <<'PY'
with open("typed/model.safetensors", "r+b") as file:
    size = int.from_bytes(file.read(8), "little")
    header = file.read(size)
    rest = file.read()
    count, header = header.count(b'"F16"'), header.replace(b'"F16"', b'"BF16"')
    file.seek(0)
    file.write(len(header).to_bytes(8, "little") + header + rest)
print(count)
PY
)
run 1 matquant verify typed -q
expect_err '^matquant: warning: typed/model\.safetensors: tensor .*\.scales: is BF16 \[[0-9, ]*\], which is not the dtype and shape in matquant\.json$'
expect_out "^problems +$count\$"
rm -r typed

# A source of which only a layer that is quantized is another: as a merged adapter or another fine-tune would have it.
cp -rL "$model" tuned
python3 - <<'PY'
import json
with open("tuned/model.safetensors", "r+b") as file:
    size = int.from_bytes(file.read(8), "little")
    layer = json.loads(file.read(size))["model.layers.0.self_attn.q_proj.weight"]
    file.seek(8 + size + layer["data_offsets"][0])
    bits = file.read(1)[0]
    file.seek(-1, 1)
    file.write(bytes([bits ^ 1]))
PY
cp -r "$master" m8
run 0 matquant slice "$master" -o s --bits 4 -q --force
run 0 matquant slice "$master" -o own --bits 4 --format matquant -q
run 0 matquant slice own -o again --bits 4 -q
for folder in m8 s own again; do
    run 0 matquant verify $folder -q --against "$model"
    expect_no_err
    run 1 matquant verify $folder -q --against tuned
    expect_err '^matquant: warning: tuned/model\.safetensors: is not the file that was quantized: its SHA-256 is not the one in matquant\.json$'
    expect_out '^problems +1$'
    expect_out '^quantized from it +no$'
done
run 0 matquant verify m8 -q --against "$model" --json
expect_out '^\s*"weights":\s*"same",$'
run 1 matquant verify m8 -q --against tuned --json
expect_out '^\s*"weights":\s*"other",$'
# The same in files of other names: of the quantized layers nothing can be told.
for source in tuned "$model"; do
    broken index-dots "$source"
    for folder in m8 s; do
        run 0 matquant verify $folder -q --against in
        expect_err '^matquant: warning: in has its weights in other files than those that were quantized: .* cannot be told$'
        [ "$(wc -l <"$TMPDIR/stderr")" = 1 ] || fail "not one warning"
        expect_out '^problems +0$'
        expect_out '^quantized from it +cannot be told$'
    done
done
# A program that noted no digests: nothing is known, and nothing said.
for list in null '[]' '[{"file": "config.json", "sha256": "00"}]'; do
    LIST=$list python3 -c '
import json, os
provenance = json.load(open("m8/matquant.json"))
provenance["source"] = json.loads(os.environ["LIST"])
json.dump(provenance, open("m8/matquant.json", "w"))'
    run 0 matquant verify m8 -q --against tuned
    expect_no_err
done
rm -r tuned in m8 own again

fresh
python3 - <<'PY'
import json
config = json.load(open("m/config.json"))
config["quantization_config"]["group_size"] *= 2
json.dump(config, open("m/config.json", "w"))
PY
run 1 matquant verify m -q
expect_err '^matquant: warning: m/model\.safetensors: tensor model\.layers\.0\..*codes: has groups of [0-9]*, config\.json says [0-9]*$'
# A list that is none, and an entry that is none.
for damage in '[{"sha256": "00"}]' '{"config.json": 5}' '{"": {"sha256": "00"}}'; do
    fresh
    DAMAGE=$damage python3 -c '
import json, os
provenance = json.load(open("m/matquant.json"))
damage = json.loads(os.environ["DAMAGE"])
provenance["files"] = {**provenance["files"], **damage} if isinstance(damage, dict) else damage
json.dump(provenance, open("m/matquant.json", "w"))'
    problem 'matquant\.json: (its "files" are no object|lists a file without a name or without a SHA-256)$'
done

# What no tensor shows, in the master and in its slice.
fresh
sed -i 's/"rms_norm_eps":[^,]*/"rms_norm_eps": 0.01/' m/config.json
problem 'config\.json: is not as it was written: its SHA-256 is not the one in matquant\.json$'
run 1 matquant verify m -q --against "$model"
expect_err "^matquant: warning: m/config\.json: differs from the source's in \"rms_norm_eps\"\$"
expect_err '^matquant: warning: m/config\.json: is not as it was written: .*'
run 0 matquant slice "$master" -o e --bits 4 -q
run 0 matquant verify e -q
sed -i 's/"rms_norm_eps":[^,]*/"rms_norm_eps": 0.01/' e/config.json
run 1 matquant verify e -q
expect_err '^matquant: warning: e/config\.json: is not as it was written: .*'
rm -r e
fresh
rm m/tokenizer.json
ln -s nowhere m/tokenizer.json
problem 'tokenizer\.json: cannot open: .*'
# Groups that are smaller where the size divides no row are as they should be.
run 0 matquant quantize "$model" -o fallback --recipe rtn --group-size 96 --group-fallback 32 -q
run 0 matquant verify fallback -q --against "$model"
# inspect counts them: all but those whose rows the size divides.
smaller=$(python3 - <<'PY'
import json
header = open("fallback/model.safetensors", "rb").read()
header = json.loads(header[8:8 + int.from_bytes(header[:8], "little")])
rows = [entry["shape"][1] for name, entry in header.items() if name.endswith(".codes")]
assert 0 < sum(row % 96 != 0 for row in rows) < len(rows), rows
print(sum(row % 96 != 0 for row in rows))
PY
)
run 0 matquant inspect fallback
expect_out "^group size +96; of $smaller tensors 32\$"
run 0 matquant inspect fallback --json
expect_out "\"other_tensors\":[[:space:]]*$smaller,"
expect_out '"other_group_size":[[:space:]]*32,'
run 0 matquant inspect "$master"
expect_out '^group size +32$'
run 0 matquant slice fallback -o own --bits 4 --format matquant -q
run 0 matquant inspect own
expect_out "^group size +96; of $smaller tensors 32\$"
rm -r own
cp -r fallback bare # what only matquant.json says is not checked without it
rm bare/matquant.json
run 1 matquant verify bare -q
expect_out '^problems +1$'
run 0 matquant slice fallback -o fs --bits 4 -q
grep -q ', groups of 96 (of 32 where those divide no row)$' fs/README.md || fail "the card does not know of the fallback"

# Folders of ours that are for other programs are not another tool's.
run 0 matquant slice "$master" -o gptq --bits 4 --format gptq -q
run 3 matquant eval gptq --text "$DATA/demo-eval.txt" -q
expect_one_error '^matquant: gptq: is a slice in the format gptq, which matquant writes .* and does not read'

# A slice that is damaged says what is wrong with it.
run 0 matquant slice "$master" -o damaged --bits 4 -q
python3 - <<'PY'
import json
config = json.load(open("damaged/config.json"))
for key in ("quantization", "quantization_config"):
    config.get(key, {}).pop("bits", None)
json.dump(config, open("damaged/config.json", "w"))
PY
run 3 matquant inspect damaged
expect_one_error '^matquant: damaged/config\.json: is quantized in a way that is neither .*'

# How config.json reads the codes, of a master and of its slice in the same format: the tensors are the same whatever it says.
says() { # FOLDER KEY VALUE REGEX: FOLDER with another value in config.json
    rm -rf m
    cp -r "$1" m
    python3 - "$2" "$3" <<'PY'
import json, sys
config = json.load(open("m/config.json"))
config["quantization_config"][sys.argv[1]] = json.loads(sys.argv[2])
json.dump(config, open("m/config.json", "w"))
PY
    run 1 matquant verify m -q
    expect_err "^matquant: warning: .*$4"
}
run 0 matquant slice "$master" -o same --bits 4 --format matquant -q
run 0 matquant verify same -q
for folder in "$master" same; do
    says "$folder" slice_rule '"round"' 'config\.json: says slice_rule "round", but the codes were made for "top"$'
    says "$folder" group_size 33 'has groups of 32, and config\.json says 33, which does not divide its rows of 128$'
done
