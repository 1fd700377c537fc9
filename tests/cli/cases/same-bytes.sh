# Two runs give the same bytes, on one thread and on two.
. "$CLI/shared.sh"
model=$short_model
run 0 matquant quantize "$model" -o one $small --threads 1
run 0 matquant quantize "$model" -o two $small --threads 1
diff -r one two || fail "two runs differ"
for folder in three four; do
    run 0 matquant quantize "$model" -o $folder $small --threads 2
done
diff -r three four || fail "two runs on two threads differ"
run 0 matquant quantize "$model" -o other $small --threads 1 --seed 1
if cmp -s one/model.safetensors other/model.safetensors; then fail "another seed changed nothing"; fi
run 0 matquant slice one -o s1 --bits 4 --threads 1
run 0 matquant slice one -o s2 --bits 4 --threads 2
diff -r s1 s2 || fail "two slices differ"

# Shards hold the same tensors.
run 0 matquant slice one -o shards --bits 4 --max-shard-size 256K
expect_exists shards/model.safetensors.index.json
measure="--text $DATA/demo-eval.txt --seq-len 32 --windows 2 --json -q"
for folder in s1 shards; do
    run 0 matquant eval $folder $measure
    stdout | grep '"nll"' >$folder.nll
done
expect_same s1.nll shards.nll
