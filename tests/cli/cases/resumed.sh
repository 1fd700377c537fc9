# --state: killed or interrupted anywhere, the same command goes on, makes the bytes of an uninterrupted run, and clears up.
# timeout: 900
. "$CLI/shared.sh"
model=$short_model
quantize="matquant quantize $model --calib $DATA/demo-calib.jsonl.gz --samples 4 --seq-len 64 --epochs 2 --periods 2,1,1 --group-size 32
    --gemm openblas"
run 0 $quantize -o plain --threads 1
run 0 $quantize -o out --state state --threads 2
expect_out '^state +0 of 3 blocks and 0 widths of the refit were there$'
diff -r plain out || fail "--state changed the output"
expect_only out plain
rm -r out

# Killed in the second block, asked to stop in the third and in the refit.
stopped() { run $1 python3 "$tools/signal_after.py" $2 "$3" $quantize -o out --state state --threads $4; }
stopped 137 KILL '^learn .*block 1/3' 1
expect_exists state/job.json
[ ! -e out ] || fail "an output"
stopped 5 INT '^learn .*block 2/3' 2
expect_err '^learn .*block 1/3, learned before'
expect_err '^matquant: state keeps what is finished: go on with the same command$'
expect_err '^matquant: interrupted$'
[ "$(grep -c 'same command' "$TMPDIR/stderr")" = 1 ] || fail "it says so more than once"
expect_only plain state
stopped 5 TERM '^refit .*: int4' 1
expect_exists state/block-00002.safetensors
expect_exists state/refit-w4.safetensors

# A dry run says what is there, and touches nothing.
ls -l state >before
run 0 $quantize -o out --state state --dry-run
expect_out '^state +3 of 3 blocks and 2 widths of the refit are there$'
ls -l state | diff before - || fail "a dry run changed the state"
rm before

# Another job, a foreign file, a damaged block.
run 2 $quantize -o out --state state --seed 1 -q
expect_one_error "^matquant: state: is the state of another job: its recipe\.seed is 0, this one's is 1; remove the folder.*"
touch state/mine
run 2 $quantize -o out --state state -q
expect_one_error '^matquant: state: holds "mine", .*'
rm state/mine
cp state/block-00001.safetensors whole
printf 'x' | dd of=state/block-00001.safetensors bs=1 seek=5000 conv=notrunc 2>/dev/null
run 3 $quantize -o out --state state -q
expect_one_error '^matquant: state/block-00001.safetensors: is damaged: .*; remove it, and it is made again$'
mv whole state/block-00001.safetensors
run 2 matquant quantize "$model" -o out --state state --recipe rtn -q
expect_one_error '^matquant: recipe rtn learns nothing: it has no use for --state$'

run 3 $quantize -o out --state none/state --dry-run -q
expect_one_error '^matquant: none/state: cannot make the folder: .*'
run 2 $quantize -o state/out --state state -q
expect_one_error '^matquant: state: the output is inside the folder of --state$'
run 2 $quantize -o out --state out/ -q
expect_one_error '^matquant: out/: --state and the output are the same folder$'
run 2 $quantize -o out --state out/state -q
expect_one_error '^matquant: out/state: --state is inside the output$'

# Another run has the folder: that is said before the model writes a text.
cat >locked.py <<'PY'
import fcntl, os, sys
folder = os.open(sys.argv[1], os.O_RDONLY)
os.set_inheritable(folder, True)
fcntl.flock(folder, fcntl.LOCK_EX)
os.execvp(sys.argv[2], sys.argv[2:])
PY
ls -l state >before
run 2 python3 locked.py state $quantize -o out --state state -q
expect_one_error '^matquant: state: another run is at work with it$'
ls -l state | diff before - || fail "a run without the lock changed the state"
mkdir fresh
run 2 python3 locked.py fresh $quantize --calib self -o out --state fresh
expect_err '^matquant: fresh: another run is at work with it$'
if grep -q sampling "$TMPDIR/stderr"; then fail "text was written before"; fi
expect_only before fresh locked.py plain state
rm -r before fresh locked.py

# The disk is full at the next width; and then it goes on to the end.
run 4 env MATQUANT_FAULT=write:450:ENOSPC $quantize -o out --state state
expect_no_out
expect_err '^refit .*: int4, refitted before'
expect_err '^matquant: (out/model|state/refit-w3)\.safetensors: .*No space left on device$'
[ ! -e state/refit-w2.safetensors ] || fail "the last width is done"
[ ! -e out ] || fail "an output"
run 0 $quantize -o out --state state --threads 2 --json
stdout | python3 -c 'import json, sys
state = json.load(sys.stdin)["state"]
assert (state["folder"], state["blocks"]) == ("state", 3) and state["widths"] >= 2, state' || fail "the result"
expect_err '^refit .*int8, refitted before'
diff -r plain out || fail "not the bytes of an uninterrupted run"
expect_only out plain

# The current folder cannot be removed: emptied, it stays without a word.
mkdir here
cd here
run 0 $quantize -o ../out --state . -q --force
expect_no_err
expect_only
cd ..
diff -r plain out || fail "--state . changed the output"
