# needs: master
# GGUF, read back by a program that shares no code with ours: 4 and 5 bits exact, others as close as was said.
. "$CLI/shared.sh"
master=$FIXTURES/master/m
for bits in 4 5; do
    run 0 matquant slice "$master" -o s$bits.gguf --bits $bits --format gguf
    ! stdout | grep -q '^widths' || fail "all layers have the $bits bits that were asked for"
    expect_out "^format's error +none: the weights are exactly the slice's$"
    run 0 python3 "$tools/read_gguf.py" "$master" s$bits.gguf $bits
    expect_out '^[1-9][0-9]* numbers are the same$'
done
run 1 python3 "$tools/read_gguf.py" "$master" s5.gguf 4
expect_err '^read_gguf\.py: the model card does not say what this is$'

# 8 bits have no offset there: the difference that is reported is the one that is found.
run 0 matquant slice "$master" -o s8.gguf --bits 8 --format gguf --json
stdout >report.json
run 0 python3 "$tools/read_gguf.py" "$master" s8.gguf 8
stdout | python3 -c '
import json, re, sys
found = float(re.search(r"error (\S+)", sys.stdin.read()).group(1))
report = json.load(open("report.json"))
assert abs(report["relative_error"] / found - 1) < 1e-4, (report["relative_error"], found)
assert found < 1e-4 and len(report["inexact"]) == 42, found' || fail "another error than reported"

# Rows of 128 and 384 have no super-blocks of 256: types that are larger hold such layers, which then take as many bits as
# these have, and that is said.
larger='matquant: warning: 42 layers such as model\.layers\.[0-5]\..* have rows of [0-9]* in groups of 32, no multiple of the 256 of'
run 0 matquant slice "$master" -o s2.gguf --bits 2 --format gguf --json
stdout | python3 -c '
import json, sys
report = json.load(sys.stdin)
assert report["bits"] == 2 and report["mean_bits"] == 4 and report["widths"] == [{"bits": 4, "layers": 42}], report'
expect_err "^$larger Q2_K: stored as Q4_1, [0-9.]* MiB instead of [0-9.]*; they take 4 bits, no larger there \
\(--layer-bits '\.=2' keeps 2\)\$"
run 0 python3 "$tools/read_gguf.py" "$master" s2.gguf 2 .=4
run 0 matquant slice "$master" -o s3.gguf --bits 3 --format gguf
expect_out "^format's error +none: the weights are exactly the slice's$"
expect_out '^widths +42 layers of 4 bits; 4\.000 bits on average$'
expect_err "^$larger Q3_K: stored as Q4_1, .*; they take 4 bits, .*"
run 0 python3 "$tools/read_gguf.py" "$master" s3.gguf 3 .=4
expect_out '^types 3$'
run 0 matquant slice "$master" -o s6.gguf --bits 6 --format gguf
expect_err "^$larger Q6_K: stored as Q8_0, .*; they take 8 bits, .*"
run 0 python3 "$tools/read_gguf.py" "$master" s6.gguf 6 .=8
expect_out '^types 8$'

# A width that is given is the width: codes of 2 and 3 bits are exact there, in more bytes.
for bits in 2 3; do
    run 0 matquant slice "$master" -o exact.gguf --bits $bits --layer-bits .=$bits --force
    expect_out "^format's error +none: the weights are exactly the slice's$"
    expect_err "^$larger Q${bits}_K: stored as Q4_1, [0-9.]* MiB instead of [0-9.]*\$"
    run 0 python3 "$tools/read_gguf.py" "$master" exact.gguf $bits
    expect_out '^types 3$'
done
run 0 matquant slice "$master" -o exact.gguf --bits 2 --layer-bits 'up_proj=2' --force
expect_out '^widths +36 layers of 4 bits, 6 of 2; 3\.[0-9]* bits on average$'
expect_err "^matquant: warning: 36 layers such as .*; they take 4 bits, no larger there \(--layer-bits '\.=2' keeps 2\)\$"
expect_err '^matquant: warning: 6 layers such as model\.layers\.[0-5]\.mlp\.up_proj have rows of 128 .* instead of [0-9.]*$'
run 0 python3 "$tools/read_gguf.py" "$master" exact.gguf 2 .=4 up_proj=2
run 1 python3 "$tools/read_gguf.py" "$master" exact.gguf 2 .=4
expect_err '^read_gguf\.py: the model card does not say what this is$'
rm exact.gguf

# Rows that fit no type of blocks are in F16, with 8 bits: what is said of them is said apart.
run 0 matquant quantize "$GOLDEN/models/llama" -o odd-rows --recipe rtn --group-size 8 -q
python3 "$tools/add_tokenizer.py" gpt-2 odd-rows
run 0 matquant slice odd-rows -o odd.gguf --bits 2
expect_err '^matquant: warning: 12 layers such as model\.layers\.0\..* of 32 in .* stored as Q4_1, .*; they take 4 bits, .*'
expect_err '^matquant: warning: 2 layers such as .*\.mlp\.down_proj .* of 40 in .* stored as F16, .*; they take 8 bits, .*'
expect_out '^widths +2 layers of 8 bits, 12 of 4; .*'
rm -r odd-rows odd.gguf

# --dtype: plain weights, of any width; exact in f32.
run 0 matquant slice "$master" -o f32.gguf --bits 3 --format gguf --dtype f32
expect_out "^format's error +none: the weights are exactly the slice's$"
run 0 python3 "$tools/read_gguf.py" "$master" f32.gguf 3
expect_out '^[1-9][0-9]* numbers are the same$'
for type in f16 bf16; do
    run 0 matquant slice "$master" -o $type.gguf --bits 7 --format gguf --dtype $type --json
    stdout >report.json
    run 0 python3 "$tools/read_gguf.py" "$master" $type.gguf 7
    stdout | LIMIT=$type python3 -c '
import json, os, re, sys
found = float(re.search(r"error (\S+)", sys.stdin.read()).group(1))
reported = json.load(open("report.json"))["relative_error"]
limit = {"f16": 1e-7, "bf16": 1e-5}[os.environ["LIMIT"]]
assert 0 < found < limit and abs(reported / found - 1) < 1e-2, (reported, found)' || fail "$type: another error"
done

# A number that float16 cannot hold.
cp -r "$master" large
# first_embedding BYTES: of the large model.
first_embedding() {
    python3 - "$1" <<'PY'
import json, struct, sys
with open("large/model.safetensors", "r+b") as file:
    (length,) = struct.unpack("<Q", file.read(8))
    begin, _ = json.loads(file.read(length))["model.embed_tokens.weight"]["data_offsets"]
    file.seek(8 + length + begin)
    file.write(bytes.fromhex(sys.argv[1]))
PY
}
first_embedding 8048 # 262144, in bfloat16
run 2 matquant slice large -o no.gguf --bits 4 --format gguf --dtype f16
expect_one_error '^matquant: .*token_embd\.weight: holds a number that F16 cannot; use --dtype bf16 or f32$'
first_embedding c07f # not a number: nor does it travel on as it is
run 3 matquant slice large -o no.gguf --bits 4 --format gguf
expect_one_error '^matquant: .*embed_tokens\.weight: at byte [0-9]+: weight number 0 is not finite$'
rm -r large

# One file, replaced only by its like; nothing else is left behind.
run 2 matquant slice "$master" -o s4.gguf --bits 5 --format gguf
expect_one_error '^matquant: s4.gguf: .*exists.*'
run 0 matquant slice "$master" -o s4.gguf --bits 5 --format gguf --force
expect_same s4.gguf s5.gguf
echo precious >other.gguf
run 2 matquant slice "$master" -o other.gguf --bits 4 --format gguf --force
expect_one_error '^matquant: other.gguf: is not replaced: .*GGUF'
run 2 matquant slice "$master" -o folder --bits 4 --format gguf
expect_one_error '^matquant: folder: .*\.gguf'
run 2 matquant slice "$master" -o s7.gguf --bits 7 --format gguf
expect_one_error '^matquant: GGUF has no 7 bits; use --bits 2, 3, 4, 5, 6 or 8, .*--format matquant$'
run 2 matquant slice "$master" -o s7.gguf --bits 4 --format gguf --max-shard-size 1M
expect_one_error '^matquant: --max-shard-size: .*'
expect_only f32.gguf f16.gguf bf16.gguf s2.gguf s3.gguf s4.gguf s5.gguf s6.gguf s8.gguf other.gguf report.json
