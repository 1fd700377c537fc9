# Names that are not UTF-8, or would end what they stand in, make no file that cannot be read again.
. "$CLI/shared.sh"
model=$short_model
bad=$(printf 'b\377d')
cp "$DATA/demo-calib.jsonl.gz" "$bad.jsonl.gz"
cp "$DATA/demo-eval.txt" "$bad.txt"
ln -s "$model" "$bad"
replaced() { python3 - "$@" <<'PY'
import json, sys
value = json.load(open(sys.argv[1], encoding="utf-8"))
for key in sys.argv[2].split("/"):
    value = value[int(key) if key.isdigit() else key]
assert value == "b\ufffdd" + sys.argv[3], ascii(value)
PY
}
run 0 matquant quantize "$model" -o m --calib "$bad.jsonl.gz" --samples 2 --seq-len 32 --epochs 1 --group-size 32 --no-refit -q
replaced m/matquant.json calibration/files/0/file .jsonl.gz || fail "the calibration text's name"
run 0 matquant eval m --text "$bad.txt" --reference "$bad" --seq-len 64 --windows 1 --record -q
replaced m/matquant.json evaluations/0/text/file .txt || fail "the text's name"
replaced m/matquant.json evaluations/0/reference/model '' || fail "the reference's name"
run 0 matquant verify m --against "$model" -q
mv m "$bad-m"
for format in matquant gptq; do
    run 0 matquant slice "$bad-m" -o $format --bits 8 --format $format -q
    replaced $format/matquant.json slice/master -m || fail "the master's name"
    python3 -c 'open("'$format'/README.md", encoding="utf-8").read()' || fail "a card that is not UTF-8"
done
run 0 matquant verify matquant -q
mv "$bad-m" 'a`b
c'
run 0 matquant slice 'a`b
c' -o ticks --bits 4 -q
grep -q '^- cut out of the master checkpoint `ab.*c`, recipe' ticks/README.md || fail "a name ends its own backticks"

# A name out of a file does nothing to the terminal.
cp -r "$model" colours
chmod -R u+w colours
python3 - <<'PY'
import json, struct
path = "colours/model.safetensors"
data = open(path, "rb").read()
(length,) = struct.unpack("<Q", data[:8])
header, rest = json.loads(data[8:8 + length]), data[8 + length:]
header["extra\x1b[31mred"] = {"dtype": "F32", "shape": [2], "data_offsets": [len(rest), len(rest) + 8]}
text = json.dumps(header).encode()
open(path, "wb").write(struct.pack("<Q", len(text)) + text + rest + struct.pack("<2f", 1.1, 2.2))
PY
run 0 matquant quantize colours -o c --recipe rtn --group-size 32 -q
run 0 matquant slice c -o cs --bits 4 --format safetensors --dtype bf16 -v
expect_out '^  extra.\[31mred '
if stdout | grep -q "$(printf '\033')"; then fail "an escape in the table"; fi

# What is there, by another name: "." is the folder's.
mv 'a`b
c' m
(cd m && matquant slice . -o ../here --bits 4 -q >/dev/null)
python3 -c 'import json; assert json.load(open("here/matquant.json"))["slice"]["master"] == "m"' || fail '"." is no name'

# A file of the source with such a name has no place in a list of files: it is not copied, and what has none of it is replaced.
cp -rL "$model" odd
echo notes >"odd/$bad.txt"
for force in '' --force; do
    run 0 matquant quantize odd -o n --recipe rtn -q $force
    LC_ALL=C grep -Fxq "matquant: warning: odd/$bad.txt is not copied: its name is not UTF-8" "$TMPDIR/stderr" || fail "no warning"
    [ "$(wc -l <"$TMPDIR/stderr")" = 1 ] || fail "not one warning"
    [ ! -e "n/$bad.txt" ] || fail "the file came along"
done
run 0 matquant verify n --against odd -q
cp "odd/$bad.txt" n # as an earlier program would have
run 0 matquant verify n --against odd -q
for force in '' --force; do
    run 0 matquant slice n -o n4 --bits 4 -q $force
    [ "$(wc -l <"$TMPDIR/stderr")" = 1 ] || fail "not one warning"
    [ ! -e "n4/$bad.txt" ] || fail "the file came along"
done
