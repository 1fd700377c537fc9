# needs: master
# eval --max-ppl, --max-kl and --min-acc: results on stdout in any case, status 1 and a line when a gate does not hold.
. "$CLI/shared.sh"
measure="matquant eval $FIXTURES/master/m --text $DATA/demo-eval.txt --seq-len 64 --windows 4 -q"
run 0 $measure --bits 8 --max-ppl 1000
expect_no_err
expect_out '^perplexity +[0-9]'
run 1 $measure --bits 2 --max-ppl 1.5
expect_err '^matquant: perplexity is [0-9.e+]+, and --max-ppl allows 1\.5$'
expect_out '^perplexity +[0-9]'
run 0 $measure --bits 8 --reference "$model" --max-kl 0.5 --max-ppl 1000
run 1 $measure --bits 2 --reference "$model" --max-kl 0.0001 --max-ppl 1.5 --json
expect_err '^matquant: perplexity is '
expect_err '^matquant: the KL divergence is [0-9.e-]+, and --max-kl allows 0\.0001$'
stdout | python3 -m json.tool >/dev/null || fail "not JSON"
run 2 $measure --max-kl 1
expect_one_error '^matquant eval: --max-kl needs --reference MODEL'

# A result that is no number passes no gate, whatever it allows; a norm's weight, though finite, has made it so.
broken huge-norm
python3 "$tools/make_tasks.py" "$DATA/demo-eval.txt" 4 >task.jsonl
text="--text $DATA/demo-eval.txt --seq-len 64 --windows 4"
run 1 matquant eval in $text --max-ppl 1000 --reference "$model" --max-kl 1000 --tasks task.jsonl --min-acc 0 --json -q
expect_err '^matquant: perplexity is -?nan, and --max-ppl allows 1000$'
expect_err '^matquant: the KL divergence is -?nan, and --max-kl allows 1000$'
expect_err '^matquant: the mean accuracy is -?nan, and --min-acc demands 0$'
stdout | python3 -c '
import json, sys
result = json.load(sys.stdin)
numbers = [result[key] for key in ("perplexity", "nll", "nll_stderr", "kl", "kl_stderr")] + list(result["mean"].values())
assert numbers == [None] * 9 and result["reference_perplexity"] < 1000, result' || fail "numbers of what is none"
run 1 matquant eval "$model" $text --max-ppl 1000 --reference in --max-kl 1000 -q
[ "$(wc -l <"$TMPDIR/stderr")" -eq 1 ] || fail "more than one gate"
expect_err '^matquant: the KL divergence is -?nan, and --max-kl allows 1000$'
