# Where the text is shorter than the refit has use for, the model writes the rest: the same on any number of threads, none of
# it for the blocks, none in a dry run, and the provenance says how much.
. "$CLI/shared.sh"
model=$short_model
zcat "$DATA/demo-calib.jsonl.gz" | head -3 >text.jsonl
quantize="matquant quantize $model --calib text.jsonl --samples 6 --seq-len 64 --epochs 1 --group-size 32 --gemm openblas"
run 0 $quantize -o out --dry-run --json
stdout >dry.json
run 0 $quantize -o one --threads 1 --json
stdout >wet.json
expect_err '^matquant: the text has 23 sequences of 64 tokens: the model goes on from pieces of it and writes 21 more \(--no-extend leaves that out\)$'
run 0 $quantize -o two --threads 3 -q
diff -r one two || fail "threads change it"
if matquant quantize "$model" -o none --calib text.jsonl --group-size 32 --gemm onednn-bf16 --dry-run -q >none.txt 2>&1; then
    for threads in 1 3; do
        run 0 $quantize -o bf16-$threads --gemm onednn-bf16 --threads $threads -q
    done
    diff -r bf16-1 bf16-3 || fail "threads change products of bfloat16"
    cmp -s bf16-1/model.safetensors one/model.safetensors && fail "the same as with products of float32"
fi
verified one
run 0 $quantize -o plain --no-extend --json
stdout >plain.json
run 0 matquant slice one -o int4 --bits 4
grep -q '^- of the text for training end to end [0-9]* tokens are the model.s own, which went on from pieces of that$' int4/README.md || fail "the card"
python3 - <<'PY' || fail "what was written"
import json, struct
dry, wet, plain = (json.load(open(name + ".json")) for name in ("dry", "wet", "plain"))
read, written = wet["calibration_tokens"] // 64, wet["written_tokens"] // 64
assert 6 <= read < 40, read  # shorter than wanted: 42 to train on and 2 to measure on
kept_back = 2  # a sixteenth of what is trained on
assert written == 42 - (read - kept_back) > 0, (read, written)
assert [dry[key] for key in ("calibration_tokens", "written_tokens")] == [64 * read, 64 * written], dry
assert plain["written_tokens"] == 0 and plain["calibration_tokens"] == 64 * read, plain
assert wet["memory_peak"] <= dry["memory_predicted"], (wet["memory_peak"], dry["memory_predicted"])

def provenance(folder):
    return json.load(open(folder + "/matquant.json"))
one, other = provenance("one"), provenance("plain")
assert one["calibration"]["written_tokens"] == 64 * written and one["calibration"]["tokens"] == 64 * read
assert "written_tokens" not in other["calibration"]
widths = {item["bits"]: item for item in one["refit"]["widths"]}
assert widths[2]["trained_tokens"] == 42 * 64, widths[2]
assert one["blocks"] == other["blocks"]  # they learn from what was read

def codes(folder):
    with open(folder + "/model.safetensors", "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    return {name: data[slice(*entry["data_offsets"])] for name, entry in header.items() if name.endswith(".codes")}
assert len(codes("one")) == 21 and codes("one") == codes("plain")
PY
# An interrupted run goes on, with the text that is kept; without that it writes the same again.
interrupted() { run 5 python3 "$tools/signal_after.py" INT "$1" $quantize -o again --state state --threads 2; }
interrupted '^learn .*block 2/3'
expect_exists state/text.safetensors
cp state/text.safetensors kept
printf 'x' | dd of=state/text.safetensors bs=1 seek=500 conv=notrunc 2>/dev/null
run 3 $quantize -o again --state state -q
expect_one_error '^matquant: state/text.safetensors: is damaged: .*; remove it, and it is made again$'
rm state/text.safetensors
interrupted '^refit .*: int4'
expect_err '^matquant: the text has '
cmp -s kept state/text.safetensors || fail "not the same text"
python3 - <<'PY' || fail "how the text is laid out"
import array, json, struct
with open("kept", "rb") as file:
    header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    data = file.read()
wet = json.load(open("wet.json"))
read, written = wet["calibration_tokens"] // 64, wet["written_tokens"] // 64
count, length = header["ids"]["shape"]
assert (count, length) == (read + written, 64), header["ids"]
ids = array.array("i", data[slice(*header["ids"]["data_offsets"])])
rows = [tuple(ids[64 * i: 64 * i + 64]) for i in range(count)]
pieces = {row[at: at + 8] for row in rows[written: count - 2] for at in range(57)}  # not of what is measured on
assert all(row[:8] in pieces for row in rows[:written]), "a beginning that is no piece of the text"
assert len(set(rows)) == count, "sequences alike"
PY
rm kept
head -2 text.jsonl >other.jsonl
run 2 $quantize --calib other.jsonl -o again --state state -q
expect_one_error '^matquant: state: is the state of another job: its refit.epochs is 1, this one.s is 2; .*'
run 2 $quantize --refit-tokens 2624 -o again --state state -q
expect_one_error '^matquant: state: is the state of another job: its refit.train_tokens is 2688, this one.s is 2624; .*'
run 2 $quantize --no-extend -o again --state state -q
expect_one_error '^matquant: state: is the state of another job: its recipe.extend is true, this one.s is false; .*'
run 0 $quantize -o again --state state
grep -q '^matquant: the text has ' "$TMPDIR/stderr" && fail "it wrote the text that is there"
diff -r one again || fail "not the bytes of an uninterrupted run"
[ ! -e state ] || fail "the state is still there"
