# What is done all the same, but hardly what was meant.
. "$CLI/shared.sh"

# A model without its tokenizer; nothing is said of one that has it.
cp -r "$model" bare
rm bare/tokenizer.json
run 0 matquant quantize bare -o none --recipe rtn --group-size 64 -q
expect_err '^matquant: warning: bare has no tokenizer\.json: .*'
run 0 matquant quantize "$model" -o rounded --recipe rtn --group-size 64 -q
expect_no_err

# Chat templates that stand in a folder of their own, which no output has.
cp -r "$model" more
mkdir more/additional_chat_templates
echo '{{ messages }}' >more/additional_chat_templates/tools.jinja
run 0 matquant quantize more -o fewer --recipe rtn --group-size 64 -q
expect_err '^matquant: warning: more/additional_chat_templates is not copied: .*'
[ "$(wc -l <"$TMPDIR/stderr")" = 1 ] || fail "not one warning"

# An adapter that lies beside the weights: with peft installed, transformers would load its base model in the slice's place.
cp -r "$model" adapted
echo '{"base_model_name_or_path": "someone/a-model"}' >adapted/adapter_config.json
cp adapted/model.safetensors adapted/adapter_model.safetensors
run 0 matquant quantize adapted -o merged --recipe rtn --group-size 64 -q
expect_err '^matquant: warning: adapted has an adapter \(adapter_config\.json\), which is not applied: merge it .*'
[ "$(wc -l <"$TMPDIR/stderr")" = 1 ] || fail "not one warning"
[ "$(ls -A merged)" = "$(ls -A rounded)" ] || fail "the adapter came along: $(ls -A merged)"
run 0 matquant verify merged --against adapted -q
# It is said before the model writes a text, which may take minutes.
run 0 matquant quantize adapted -o unmerged --calib self --samples 1 --seq-len 16 --epochs 1 --group-size 64 --no-refit
[ "$(grep -Eo 'has an adapter|sampling' "$TMPDIR/stderr" | tr '\n' ' ')" = "has an adapter sampling " ] || fail "not in this order"
# Masters that earlier programs made have the file; their slices do not.
cp adapted/adapter_config.json merged
run 0 matquant slice merged -o unadapted --bits 4 -q
[ ! -e unadapted/adapter_config.json ] || fail "the adapter came along from the master"

# What a training run left behind is not copied, nor is what is large and no tokenizer; that is named.
cp -r "$model" trained
echo x | tee trained/model.safetensors.bak trained/optimizer.pt trained/trainer_state.json >trained/kept.txt
truncate -s 65M trained/data.txt
run 0 matquant quantize trained -o nothing --recipe rtn --group-size 64 -q --dry-run
expect_err '^matquant: warning: trained/data\.txt is not copied: it is larger than 64 MiB and no file of a tokenizer$'
[ "$(wc -l <"$TMPDIR/stderr")" = 1 ] || fail "not one warning"
run 0 matquant quantize trained -o clean --recipe rtn --group-size 64 -q
[ "$(wc -l <"$TMPDIR/stderr")" = 1 ] || fail "not one warning"
[ "$(ls -A clean)" = "$( (ls -A rounded && echo kept.txt) | sort)" ] || fail "what was copied: $(ls -A clean)"
run 0 matquant verify clean --against trained -q
cp trained/data.txt clean # as an earlier program would have
run 0 matquant slice clean -o slim --bits 4 -q
expect_err '^matquant: warning: clean/data\.txt is not copied: .*'
[ ! -e slim/data.txt ] || fail "the large file came along"

# Tensors that the architecture does not have: copied into the master, but mlx-lm would not load a slice with them.
names() { python3 -c 'import sys
sys.path.append(sys.argv[1])
from checkpoint import read_tensors
print("\n".join(read_tensors(sys.argv[2])))' "$tools" "$1"; }
broken foreign-tensors
for mode in --dry-run --force; do
    run 0 matquant quantize in -o foreign --recipe rtn --group-size 64 -q $mode
    expect_err '^matquant: warning: in: 4 tensors are not part of LlamaForCausalLM, copied as they are \(.* leave them out\): [^,]*, [^,]*, [^,]*, \.\.\.$'
    [ "$(wc -l <"$TMPDIR/stderr")" = 1 ] || fail "not one warning"
done
run 0 matquant verify foreign --against in -q
foreign='^(score\.weight|vision\.[ab]|model\.layers\.99\..*)$'
[ "$(names foreign | grep -Ec "$foreign")" = 4 ] || fail "not all are in the master"
run 0 matquant slice foreign -o whole --bits 4 --format safetensors -q
[ "$(names whole | grep -Ec "$foreign")" = 4 ] || fail "not all are in the plain slice"
python3 - "$tools" <<'PY' || fail "what the plain slice only copies is not the source's"
import sys
sys.path.append(sys.argv[1])
from checkpoint import read_tensors
source, whole = read_tensors("in"), read_tensors("whole")
assert all(tensor == source[name] for name, tensor in whole.items() if not name.endswith("_proj.weight"))
PY
run 0 matquant slice foreign -o own --bits 4 -q
[ "$(names own | grep -Ec "$foreign")" = 0 ] || fail "the slice has some"
run 0 matquant verify own --against in -q
run 0 matquant slice rounded -o usual --bits 4 -q
expect_same own/model.safetensors usual/model.safetensors
for folder in foreign own; do # inspect of the master foretells it
    run 0 matquant inspect $folder --json
    stdout | python3 -c 'import json, sys
print(*((w["bits_per_weight"], w["bytes"]) for w in json.load(sys.stdin)["widths"] if w["bits"] == 4))' >$folder.size
done
expect_same foreign.size own.size
broken adapter-beside # and frequencies, of which nothing is said
run 0 matquant quantize in -o dry --recipe rtn --group-size 64 -q --dry-run
expect_err '^matquant: warning: in: 1 tensor is not part of LlamaForCausalLM, copied as it is \(.* leave it out\): model\.layers\.1\.mlp\.up_proj\.lora_A\.weight; .* not merged: .*'

# Weights that were rounded before.
run 0 matquant slice rounded -o plain --bits 4 --format safetensors -q
run 0 matquant quantize plain -o twice --recipe rtn --group-size 64 -q
expect_err '^matquant: warning: plain is a slice \(it has a matquant\.json\): .*'

# Fewer bits than were trained for; than four, where nothing was.
run 0 matquant quantize "$short_model" -o learned $small --bits 8,4 --no-refit -q
run 0 matquant slice learned -o three --bits 3
expect_err '^matquant: warning: the master was not trained for 3 bits, nor for fewer; measure them .*--bits 3.*'
for width in 4 6 8; do
    run 0 matquant slice learned -o "w$width" --bits $width -q
    expect_no_err
done
# Weights so small that float16 has no scales for them at 8 bits: said once, of a run that was interrupted, too.
cp -r "$short_model" small
chmod -R u+w small
python3 - small/model.safetensors <<'PY'
import json, struct, sys
data = bytearray(open(sys.argv[1], "rb").read())
(length,) = struct.unpack("<Q", data[:8])
for name, entry in json.loads(data[8:8 + length]).items():
    if "q_proj" in name:
        begin, end = (8 + length + at for at in entry["data_offsets"])
        words = struct.unpack("<%dH" % ((end - begin) // 2), data[begin:end])
        less = [w - (14 << 7) if w >> 7 & 255 > 14 else w & 0x8000 for w in words]  # 2^-14 times
        data[begin:end] = struct.pack("<%dH" % len(less), *less)
open(sys.argv[1], "wb").write(data)
PY
run 0 matquant quantize small -o small-master $small --no-refit -q
expect_err '^matquant: warning: weights of 3 linear layers \(first model\.layers\.0\.self_attn\.q_proj\.weight\) are too small for .*'
run 5 python3 "$tools/signal_after.py" INT '^learn .*2/3' matquant quantize small -o other-master --state state $small --no-refit
run 0 matquant quantize small -o other-master --state state $small --no-refit -q
expect_err '^matquant: warning: weights of 3 linear layers .*'
rm -r small small-master other-master

# A width whose loss has no weight was not trained; one that learns from a wider one alone was.
run 0 matquant quantize "$short_model" -o weightless $small --lambda 10,3,0 --no-refit -q
run 0 matquant quantize "$short_model" -o student $small --bits '8,4,8>2' --no-refit -q
trained() { # FOLDER: the widths that inspect calls so
    matquant inspect "$1" --json | python3 -c 'import json, sys
print(*(w["bits"] for w in json.load(sys.stdin)["widths"] if w["trained"]))'
}
[ "$(trained weightless)" = "8 4" ] || fail "trained: $(trained weightless)"
[ "$(trained student)" = "8 4 2" ] || fail "trained: $(trained student)"
run 0 matquant slice weightless -o weightless-2 --bits 2 -q
expect_err '^matquant: warning: the master was not trained for 2 bits, nor for fewer; .*'
[ "$(trained weightless-2)" = "" ] || fail "the slice is trained"
grep -q ', trained widths 8, 4, groups' weightless-2/README.md || fail "the card has another list"
run 0 matquant slice student -o student-2 --bits 2 -q
expect_no_err
run 0 matquant quantize "$short_model" -o refitted $small --lambda 10,3,0 --refit-bits 2 -q # the refit trains it, too
[ "$(trained refitted)" = "8 4 2" ] || fail "trained: $(trained refitted)"
run 0 matquant slice refitted -o refitted-2 --bits 2 -q
expect_no_err
[ "$(trained refitted-2)" = 2 ] || fail "the refitted slice is not trained"
[ "$(trained student-2)" = 2 ] || fail "the slice is not trained"
grep -q ', trained widths 8, 4, 2, groups' student-2/README.md || fail "the card has another list"
run 0 matquant slice rounded -o two --bits 2 -q
expect_err '^matquant: warning: the master was not trained for 2 bits; measure them .*'
run 0 matquant slice rounded -o four --bits 4 -q
expect_no_err

# What OUT is called says the format, where nothing else does.
run 0 matquant slice rounded -o four.gguf --bits 4
expect_out '^format +gguf, 4 bits$'
run 0 matquant slice rounded -o FOUR.GGUF --bits 4
expect_out '^format +gguf, 4 bits$'
run 0 matquant slice rounded -o Four.Gguf --bits 4 --format gguf
expect_same FOUR.GGUF four.gguf
expect_same Four.Gguf four.gguf
run 0 matquant slice rounded -o slash.gguf/ --bits 4
expect_out '^format +gguf, 4 bits$'
expect_same slash.gguf four.gguf
run 3 matquant eval FOUR.GGUF --text "$DATA/demo-eval.txt"
expect_one_error '^matquant: FOUR\.GGUF: is a GGUF file, .*'
run 2 matquant slice rounded -o other.gguf --bits 4 --format gguf --dtype f64
[ ! -e other.gguf ] || fail "other.gguf is there"
# A folder is not named like that file.
for format in mlx gptq compressed-tensors safetensors matquant; do
    for name in other.gguf other.GGUF other.gguf/ other.Gguf//; do
        run 2 matquant slice rounded -o $name --bits 4 --format $format
        expect_one_error "^matquant: $name: is the name of a file, but the format $format is a folder; give it another name, or use --format gguf\$"
        [ ! -e $name ] || fail "$name is there"
    done
done

# Of what a format cannot hold, the three worst tensors; all of them with -v.
run 0 matquant slice rounded -o fitted --bits 4 --format gptq -q
[ "$(stdout | grep -c 'qweight  ')" = 3 ] || fail "not three tensors"
expect_out '^  and 39 tensors less; --verbose lists all$'
run 0 matquant slice rounded -o fitted --bits 4 --format gptq --force -v
[ "$(stdout | grep -c 'qweight  ')" = 42 ] || fail "not all tensors"
worst=$(stdout | grep 'qweight  ' | sort -k 2 -g -r | head -n 1 | awk '{ print $2 }')
run 0 matquant slice rounded -o fitted --bits 4 --format gptq --force -q
[ "$(stdout | grep 'qweight  ' | head -n 1 | awk '{ print $2 }')" = "$worst" ] || fail "the worst is not $worst"
