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
