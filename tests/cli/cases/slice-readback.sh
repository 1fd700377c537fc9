# needs: master
# A reader that shares no code with ours finds the same weights in the slice as in the master, bit for bit.
. "$CLI/shared.sh"
for bits in 2 4; do
    run 0 python3 "$tools/read_mlx.py" "$FIXTURES/master/m" "$FIXTURES/master/s$bits" $bits
    expect_out '^[1-9][0-9]* weights and [1-9][0-9]* other tensors are the same$'
    run 0 matquant verify "$FIXTURES/master/s$bits" --against "$model"
    expect_out '^problems +0$'
done
run 0 matquant slice "$FIXTURES/master/m" -o s3 --bits 3
run 0 python3 "$tools/read_mlx.py" "$FIXTURES/master/m" s3 3
run 1 python3 "$tools/read_mlx.py" "$FIXTURES/master/m" s3 4
expect_err '^read_mlx\.py: bits are not the width '

# What inspect says of a width is the size of its slice.
run 0 matquant inspect "$FIXTURES/master/m" --json
stdout >master.json
run 0 matquant inspect s3 --json
stdout >slice.json
python3 - <<'PY' || fail "the sizes differ"
import json
master, cut = json.load(open("master.json")), json.load(open("slice.json"))
of_width = {entry["bits"]: entry["bytes"] for entry in master["widths"]}
assert of_width[3] == cut["widths"][0]["bytes"], (of_width, cut)
PY

# A slice in the master's own format is inspected as what it is, codes of a byte.
run 0 matquant slice "$FIXTURES/master/m" -o own --bits 4 --format matquant -q
run 0 matquant inspect own --json
stdout >own.json
python3 - <<'PY' || fail "not its own size"
import json
width, = json.load(open("own.json"))["widths"]
card = open("own/README.md").read()
assert "%.3f bits a quantized weight" % width["bits_per_weight"] in card, (width, card)
header = int.from_bytes(open("own/model.safetensors", "rb").read(8), "little")
assert width["bytes"] == len(open("own/model.safetensors", "rb").read()) - 8 - header, width
PY
# It is the master's width, and so is a slice of it: the same recipe, sources and private tensors.
cp -r own measured
run 0 matquant eval measured --text "$DATA/demo-eval.txt" --seq-len 32 --windows 1 --record -q
run 0 matquant slice measured -o again --bits 4 -q
grep -q '"evaluations"' again/matquant.json || fail "what was recorded of it was lost"
rm -r measured again
run 0 matquant slice own -o again --bits 4 -q
run 0 matquant slice "$FIXTURES/master/m" -o once --bits 4 -q
expect_same once/model.safetensors again/model.safetensors
run 0 matquant verify again --against "$model"
for folder in own again once; do
    run 0 matquant inspect $folder --json
    stdout >$folder.json
done
python3 - <<'PY' || fail "what is known of it was lost"
import json
def read(name):
    return json.load(open(name))
for name in "own", "again", "once":
    assert read(name + ".json")["widths"][0]["trained"] is True, name
once, again = (read(name + "/matquant.json")["slice"] for name in ("once", "again"))
differs = {key for key in {*once, *again} if once.get(key) != again.get(key)}
assert differs == {"master", "master_sha256"}, differs
assert {"recipe", "source", "calibration", "refit", "private"} <= set(once), set(once)
PY
rm -r own own.json again again.json once once.json

# Output that exists, or is the master itself.
run 2 matquant slice "$FIXTURES/master/m" -o s3 --bits 4
expect_one_error '^matquant: s3: .*exists.*'
run 2 matquant slice s3 -o s3 --bits 4 --force
expect_only master.json s3 slice.json
