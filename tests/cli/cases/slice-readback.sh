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
rm -r own own.json

# Output that exists, or is the master itself.
run 2 matquant slice "$FIXTURES/master/m" -o s3 --bits 4
expect_one_error '^matquant: s3: .*exists.*'
run 2 matquant slice s3 -o s3 --bits 4 --force
expect_only master.json s3 slice.json
