# Options that the model, the output or one another contradict.
. "$CLI/shared.sh"

# A group size that divides nothing: bad input for that tensor, unless there is a fallback.
run 3 matquant quantize "$model" -o out --recipe rtn --group-size 36
expect_one_error '^matquant: .*/demo-model/model.safetensors: tensor model\.layers\.0\.self_attn\.q_proj\.weight: group size 36 does not divide its 128 inputs; .*'
expect_only
run 0 matquant quantize "$model" -o out --recipe rtn --group-size 36 --group-fallback 32 --dry-run
expect_only

for size in 1000000001 18446744073709551615; do # the latter is the library's word for "not given"
    run 2 matquant quantize "$model" -o out --recipe rtn --group-size $size --dry-run
    expect_one_error "^matquant quantize: option '--group-size' takes a whole number from 0 to 1000000000, not '$size' .*"
done

# A learning recipe without text; a text that is not there is in bad-text.
run 2 matquant quantize "$model" -o out
expect_one_error '^matquant.*--calib.*'
expect_only

# An output that exists.
mkdir out
echo mine >out/notes.txt
run 2 matquant quantize "$model" -o out $small
expect_one_error '^matquant: out: .*exists.*--force.*'
expect_only out
# --force replaces what a run of ours has written, and nothing else.
run 2 matquant quantize "$model" -o out $small --force
expect_one_error '^matquant: out: .*'
expect_only out
[ "$(cat out/notes.txt)" = mine ] || fail "out/notes.txt is gone"
cp "$model/config.json" out # another program's model, with somebody's notes
run 2 matquant quantize "$model" -o out $small --force
expect_one_error '^matquant: out: is not replaced: .*'
[ "$(cat out/notes.txt)" = mine ] || fail "out/notes.txt is gone"
rm -r out
rtn="matquant quantize $model -o out --recipe rtn --group-size 32 -q"
run 0 $rtn
echo mine >out/notes.txt
run 2 $rtn --force
expect_one_error '^matquant: out: is not replaced: it holds "notes\.txt", .*'
[ "$(cat out/notes.txt)" = mine ] || fail "out/notes.txt is gone"
rm out/notes.txt
run 0 matquant slice out -o out/int4.gguf --bits 4 -q
run 2 $rtn --force
expect_one_error '^matquant: out: is not replaced: it holds "int4\.gguf", .*'
expect_exists out/int4.gguf
rm out/int4.gguf
for format in mlx safetensors gptq compressed-tensors matquant mlx; do # all that runs write and copy
    run 0 matquant slice out -o slice --bits 4 --format $format --max-shard-size 100K --force -q
done
run 0 $rtn --force
rm -r slice out

# Nor by way of a text that it reads, which was copied there.
mkdir in
cp "$model"/* in
cp "$DATA/demo-calib.jsonl.gz" in/text.jsonl.gz
run 0 matquant quantize in -o out --recipe rtn --group-size 32 -q
run 2 matquant quantize "$model" -o out --calib out/text.jsonl.gz --samples 4 --seq-len 32 --group-size 32 --force
expect_one_error '^matquant: out/text\.jsonl\.gz: the calibration text is in the output.s folder, .*'
expect_same out/text.jsonl.gz "$DATA/demo-calib.jsonl.gz"
ln -s out/text.jsonl.gz link.jsonl.gz # nor by another name
run 2 matquant quantize "$model" -o out --calib link.jsonl.gz --samples 4 --seq-len 32 --group-size 32 --force
expect_one_error '^matquant: link\.jsonl\.gz: the calibration text is in the output.s folder, .*'
rm link.jsonl.gz
rm -r in out

# An output that is the input, by the same name or another one.
cp -r "$model" in
ln -s in link
for out in in ./in in/ "$PWD/in" link; do
    run 2 matquant quantize in -o $out $small --force
    expect_one_error "^matquant: $out: (the output is the input itself|exists and is not a folder)\$"
    expect_only in link
done
diff -r "$model" in || fail "the input was changed"
rm -r in link

# An output where nothing can be made.
run 3 matquant quantize "$model" -o nowhere/out $small
expect_one_error '^matquant: nowhere/: does not exist; create it first$'
expect_only

# Patterns that are none, and that leave nothing to do.
run 2 matquant quantize "$model" -o out --recipe rtn --include 'q_proj('
expect_one_error '^matquant: .*q_proj\(.*'
run 2 matquant quantize "$model" -o out --recipe rtn --exclude .
expect_one_error '^matquant: .*'
expect_only
