# Killed at any moment: never a half-written output, and the next run clears away what was left.
# timeout: 900
. "$CLI/shared.sh"
model=$short_model
quantize="matquant quantize $model -o out --calib $DATA/demo-calib.jsonl.gz --samples 4 --seq-len 32 --epochs 1
    --group-size 32 --gemm openblas"
for when in 0.05 0.2 0.5 '^learn .*1/3' '^learn .*2/3' '^learn .*3/3' '^refit .*int8'; do
    # After so many seconds it may be done on a fast machine, and so it may at the last of these lines: then out is there,
    # and whole. Not at the others.
    status=0
    python3 "$tools/signal_after.py" KILL "$when" $quantize >/dev/null 2>&1 || status=$?
    case $when:$status in *:137 | 0.*:0 | '^refit'*:0) ;; *) fail "status $status at $when" ;; esac
    if [ -e out ]; then
        verified out
        rm -r out
    fi
done
run 0 $quantize
expect_only out
verified out

# --force: the old output is there until the new one is whole.
cp out/model.safetensors before
run 137 python3 "$tools/signal_after.py" KILL '^learn .*2/3' $quantize --force --seed 1
expect_same out/model.safetensors before
run 0 $quantize --force --seed 1
if cmp -s out/model.safetensors before; then fail "--force replaced nothing"; fi
expect_only before out
verified out
