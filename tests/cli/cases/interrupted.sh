# Being asked to stop: status 5, a line that says so, nothing left behind.
. "$CLI/shared.sh"
model=$short_model
long="matquant quantize $model -o out --calib $DATA/demo-calib.jsonl.gz --samples 16 --seq-len 64 --epochs 4
    --group-size 32"
for signal in INT TERM HUP; do
    run 5 python3 "$tools/signal_after.py" $signal '^learn .*1/3' $long
    expect_no_out
    expect_err '^matquant: .*interrupted.*'
    expect_only
done

# In the end-to-end refit, too, when all blocks are done.
run 5 python3 "$tools/signal_after.py" INT '^refit ' $long
expect_no_out
expect_err '^learn 100\.0 %, then refit: block 3/3'
expect_err '^matquant: interrupted$'
expect_only

# The second signal does not wait (both arrive while the program is stopped, so that none comes too late; which of them
# is the second is the system's choice); what is left then goes with the next run.
run 0 sh -c "python3 $tools/signal_after.py STOP+INT+TERM+CONT '^learn .*1/3' $(echo $long); "'
    status=$?; [ $status = 130 ] || [ $status = 143 ]'
expect_no_out
[ ! -e out ] || fail "an output"
run 0 matquant quantize "$model" -o out $small
expect_only out

# The same signal twice at once is one request: timeout(1) sends it to its child and to the group.
rm -rf out
run 5 python3 "$tools/signal_after.py" TERM+TERM '^learn .*1/3' $long
expect_err '^matquant: interrupted$'
expect_only
run 5 timeout --preserve-status 2 matquant quantize "$MATQUANT_SOURCE_DIR/data/demo-model" -o out \
    --calib "$DATA/demo-calib.jsonl.gz" --group-size 64 -q
expect_err '^matquant: interrupted$'
expect_only

# A folder that somebody else has locked is waited for, but not for ever; the result is kept. Without flock(1), Python does it.
cat >locked.py <<'PY'
import fcntl, os, subprocess, sys
fcntl.flock(os.open("out", os.O_RDONLY), fcntl.LOCK_EX)
sys.exit(subprocess.run(["matquant", *sys.argv[1:]]).returncode)
PY
rm -rf out
run 0 matquant quantize "$model" -o out $small
run 4 timeout 60 python3 locked.py quantize "$model" -o out $small --force -q
expect_one_error '^matquant: out: what was made is kept as out-finished-[A-Za-z0-9_-]{6}; another process has it locked$'
verified ./out-finished-*
rm -r ./out-finished-* out locked.py
expect_only

# While a text is waited for that may never come: nobody writes to the pipe, or somebody has not written all of it.
mkfifo pipe
waiting() {
    run 5 timeout 60 python3 "$tools/signal_after.py" INT 2 "$@" -q
    expect_one_error '^matquant: interrupted$'
    expect_only pipe
}
waiting matquant eval "$model" --text pipe
waiting matquant eval "$model" --tasks pipe
waiting matquant quantize "$model" -o out --calib pipe --state state
head -c 1000 "$DATA/demo-calib.jsonl.gz" >begun
{ cat begun; rm begun; exec sleep 60; } >pipe &
waiting matquant eval "$model" --text pipe
kill $!
rm pipe

# Weights that are cut short while they are read are an error of the machine, not a death by signal.
mkdir shrinking
cp "$model"/* shrinking
cat >cut.py <<'PY'
import os, re, subprocess, sys
process = subprocess.Popen(["matquant", "quantize", "shrinking", "-o", "out", "--calib", sys.argv[1], "--samples", "16",
                            "--seq-len", "64", "--group-size", "32"], stderr=subprocess.PIPE, text=True)
for line in process.stderr:
    sys.stderr.write(line)
    if re.search("^learn .*1/3", line):
        os.truncate("shrinking/model.safetensors", 4096)
sys.exit(process.wait())
PY
run 4 python3 cut.py "$DATA/demo-calib.jsonl.gz"
expect_err '^matquant: a file that is mapped into memory cannot be read: .*'
