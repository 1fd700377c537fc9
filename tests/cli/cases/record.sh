# needs: master
# eval --record: the result stands in the master's provenance, and nothing else of the folder changes.
. "$CLI/shared.sh"
cp -r "$FIXTURES/master/m" m
cp -r m before
measure="matquant eval m --text $DATA/demo-eval.txt --seq-len 64 --windows 2 -q --json"
recorded() { python3 - "$@" <<'END'
import hashlib, json, sys
text, *wanted = sys.argv[1:]
old, new = (json.load(open(folder + "/matquant.json")) for folder in ("before", "m"))
entries = new.pop("evaluations", [])
assert old == new, "something else changed"
assert [str(e["bits"]) for e in entries] == wanted, entries
digest = hashlib.sha256(open(text, "rb").read()).hexdigest()
assert all(e["text"] == {"file": "demo-eval.txt", "sha256": digest} for e in entries), entries
for e in entries:
    result = json.load(open("result-%d" % e["bits"]))
    for key in set(e) & set(result) - {"bits", "text", "reference"}:
        assert abs(e[key] - result[key]) <= 1e-14 * abs(result[key]), (key, e, result) # eval prints 15 digits
    assert ("kl" in e) == ("kl" in result), e
    if "kl" in e:
        assert e["reference"]["model"] == "demo-model", e
        full = result["reference_perplexity"]
        assert abs(e["reference"]["perplexity"] - full) <= 1e-14 * full, (e, result)
END
}
unchanged_but_provenance() {
    for file in m/*; do
        [ $file = m/matquant.json ] || cmp -s $file before/${file#m/} || fail "$file changed"
    done
    [ "$(ls -A m)" = "$(ls -A before)" ] || fail "other files: $(ls -A m)"
    run 0 matquant verify m --against "$model" -q
}
run 0 $measure --bits 4 --record
stdout >result-4
run 0 $measure --bits 2 --record --reference "$model/"
stdout >result-2
recorded "$DATA/demo-eval.txt" 4 2 || fail "not what was measured"
unchanged_but_provenance

# The same again takes the place of the first; without --bits it is the widest.
run 0 $measure --bits 4 --record --reference "$model"
stdout >result-4
run 0 $measure --record
stdout >result-8
python3 -c 'import json; assert [json.load(open("result-%d" % r))["bits"] for r in (4, 2, 8)] == [4, 2, 8]' ||
    fail "eval does not say which width it measured"
recorded "$DATA/demo-eval.txt" 4 2 8 || fail "not replaced"
unchanged_but_provenance

# Who could read it can read it still.
chmod 640 m/matquant.json
run 0 sh -c 'umask 077; exec "$@"' sh $measure --record
[ "$(stat -c %a m/matquant.json)" = 640 ] || fail "recording changes who can read the provenance"

# Where it shows: inspect, and the cards of slices of that width.
run 0 matquant inspect m
expect_out '^4 bits +perplexity [0-9.]+, KL [0-9.]+, 2 windows of 64 tokens of demo-eval\.txt$'
expect_out '^8 bits +perplexity [0-9.]+, 2 windows of 64 tokens of demo-eval\.txt$'
run 0 matquant slice m -o s4 --bits 4 -q
grep -q '^- perplexity [0-9.]* on `demo-eval.txt` (2 windows of 64 tokens; SHA-256 `[0-9a-f]*`); KL divergence' s4/README.md ||
    fail "not in the card"
grep -q '^- cut out of the master checkpoint `m`, recipe `best`, trained widths 8, 4, 2, groups of [0-9]*, preset `balanced`' \
    s4/README.md || fail "the card does not say how it was made"
grep -q ^base_model s4/README.md && fail "a base model of no name"
cp -r m with-name
python3 - <<'PY'
import json
config = json.load(open("with-name/config.json"))
json.dump({**config, "_name_or_path": "someone/a-model"}, open("with-name/config.json", "w"))
PY
run 0 matquant slice with-name -o named --bits 4 -q
grep -qx 'base_model: someone/a-model' named/README.md || fail "the card's header has no base model"
grep -qx -- '- architecture: LlamaForCausalLM, quantized from `a-model`:' named/README.md || fail "the base model's name"

# What is recorded of a slice in the master's format is the same width on the same windows, and its slices have it once: the
# newer, with the divergence that was measured before.
run 0 matquant slice m -o own --bits 4 --format matquant -q
for tokens in 64 32; do
    run 0 matquant eval own --text "$DATA/demo-eval.txt" --seq-len $tokens --windows 2 --record -q
done
run 0 matquant slice own -o again --bits 4 -q
python3 - <<'PY' || fail "not each measurement once"
import json
first, other = json.load(open("again/matquant.json"))["slice"]["evaluations"]
assert (first["seq_len"], other["seq_len"]) == (64, 32), (first, other)
assert "kl" in first and "kl" not in other, (first, other)
PY
[ "$(grep -c perplexity again/README.md)" = 2 ] || fail "not two measurements in the card"
rm -r own again

# Slices name their master by what it was written with, whatever was recorded since.
run 0 matquant slice before -o unrecorded --bits 3 -q
python3 - <<'PY' || fail "slices of one master name two"
import hashlib, json
written = hashlib.sha256(open("before/matquant.json", "rb").read()).hexdigest()
for folder in "s4", "unrecorded":
    named = json.load(open(folder + "/matquant.json"))["slice"]["master_sha256"]
    assert named == written, (folder, named, written)
PY
rm -r unrecorded

# Names out of others' files are names in a card and on a terminal, whatever is in them.
python3 - <<'PY'
import json
def changed(path, change):
    value = json.load(open(path))
    change(value)
    json.dump(value, open(path, "w"))
changed("with-name/config.json", lambda config: config.update(_name_or_path="./a\n# Heading\n[b](c)//"))
changed("with-name/matquant.json", lambda value: value["recipe"].update(preset="p\n# Heading"))
changed("with-name/matquant.json", lambda value: value["evaluations"][0]["text"].update(file="t\x1b[2J\n"))
changed("with-name/matquant.json", lambda value: value.update({"k\x1b[2J": "v\x9b2J\x7f"}))
PY
run 0 matquant slice with-name -o odd --bits 4 -q
grep -q '^# Heading' odd/README.md && fail "a name makes a heading"
grep -qx -- '- architecture: LlamaForCausalLM, quantized from `a# Heading\[b\](c)`:' odd/README.md || fail "the odd name"
grep -q ', preset `p# Heading`' odd/README.md || fail "the odd preset"
run 0 matquant inspect with-name
expect_out ' tokens of t\?\[2J\?$'
expect_out '^k\?\[2J +v\?\?2J\?$'
[ "$(stdout | LC_ALL=C tr -d '\n' | LC_ALL=C tr -dc '\000-\037\177' | wc -c)" = 0 ] || fail "control characters"
[ "$(grep -c perplexity s4/README.md)" = 1 ] || fail "another width's in the card"
run 0 matquant slice m -o s3 --bits 3 -q
grep -q perplexity s3/README.md && fail "3 bits were not measured"

# A failure leaves the provenance as it was.
cp m/matquant.json kept
run 4 env MATQUANT_FAULT=write:1:ENOSPC $measure --bits 3 --record
expect_same m/matquant.json kept
expect_out '^[[:space:]]*"perplexity":[[:space:]]*[0-9.]+,$' # which was measured all the same
run 4 env MATQUANT_FAULT=rename:1:EIO $measure --bits 3 --record
expect_same m/matquant.json kept
unchanged_but_provenance

# Where it could not be put is said before anything is measured.
cp -r m linked
mv linked/matquant.json elsewhere.json
ln -s ../elsewhere.json linked/matquant.json
run 2 matquant eval linked --text "$DATA/demo-eval.txt" --seq-len 64 --windows 1 --record -q --json
expect_one_error '^matquant: linked/matquant\.json: exists and is not a plain file$'
rm -r linked elsewhere.json

# Only a master has one, and only a text is recorded.
run 2 matquant eval s4 --text "$DATA/demo-eval.txt" --seq-len 64 --windows 1 --record -q
expect_one_error '^matquant: s4: is no master checkpoint.*'
run 2 matquant eval m --tasks none.jsonl --record
expect_one_error '^matquant eval: --record needs --text FILE'
run 2 matquant eval m --tasks none.jsonl --windows 2
expect_one_error '^matquant eval: --windows needs --text FILE'
run 2 matquant eval m --text "$DATA/demo-eval.txt" --force
expect_one_error '^matquant eval: --force needs --items FILE'

# Two at once lose neither's.
for turn in 1 2 3; do
    rm -rf both
    cp -r m both
    matquant eval both --bits 5 --text "$DATA/demo-eval.txt" --seq-len 64 --windows 1 --record -q >/dev/null 2>first &
    run 0 matquant eval both --bits 7 --text "$DATA/demo-eval.txt" --seq-len 64 --windows 1 --record -q
    wait $! || fail "the other one: $(cat first)"
    python3 -c 'import json
bits = [entry["bits"] for entry in json.load(open("both/matquant.json"))["evaluations"]]
assert 5 in bits and 7 in bits, bits' || fail "one of two is lost"
done
