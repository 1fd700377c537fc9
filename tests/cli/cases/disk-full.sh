# A disk that is full at any write: status 4, one line that names the file, nothing left behind.
. "$CLI/shared.sh"
model=$short_model
quantize="matquant quantize $model -o out --calib $DATA/demo-calib.jsonl.gz --samples 4 --seq-len 32 --epochs 1
    --group-size 32 --gemm openblas" # auto says what it measured, in a line like an error's
for n in 400 500; do # in the refit: after the first width's line
    run 4 env MATQUANT_FAULT=write:$n:ENOSPC $quantize
    expect_no_out
    expect_err '^refit .*: int8 '
    expect_err '^matquant: out/[a-z0-9.-]+: .*No space left on device$'
    [ "$(grep -c '^matquant: ' "$TMPDIR/stderr")" -eq 1 ] || fail "more than one error"
    expect_only
done
quantize="$quantize -q"
for n in 1 2 20 60; do
    run 4 env MATQUANT_FAULT=write:$n:ENOSPC $quantize
    expect_one_error '^matquant: out/[a-z0-9.-]+: .*No space left on device$'
    expect_only
done
for fault in fsync:1:EIO fsync:3:EIO; do
    run 4 env MATQUANT_FAULT=$fault $quantize
    expect_one_error '^matquant: out.*: .*Input/output error$'
    expect_only
done

# What is complete is kept where only its name cannot be had.
run 4 env MATQUANT_FAULT=rename:1:EIO $quantize
kept='out-finished-[A-Za-z0-9_-]{6}'
expect_one_error "^matquant: out: what was made is kept as $kept; cannot rename the finished output: Input/output error\$"
verified ./out-finished-*
rm -r ./out-finished-*
expect_only

# A fault that is not understood is none that was survived.
for fault in wirte:1:ENOSPC write:1:ENOSPACE write:1; do
    run 4 env MATQUANT_FAULT=$fault $quantize
    expect_one_error "^matquant: .*: Invalid argument\$"
    expect_only
done

# Short writes are no failure; a limit on the size of files is one.
run 0 env MATQUANT_FAULT=write:3:SHORT,read:2:SHORT $quantize
verified out
rm -r out
run 4 sh -c 'ulimit -f 200; exec "$@"' sh $quantize
expect_one_error '^matquant: out/model.safetensors: .*File too large$'
expect_only

# slice writes the same way.
run 0 $quantize
run 4 env MATQUANT_FAULT=write:2:ENOSPC matquant slice out -o s4 --bits 4 -q
expect_one_error '^matquant: s4/[a-z0-9.-]+: .*No space left on device$'
expect_only out
