# needs: master
# eval --max-ppl and --max-kl: results on stdout in any case, status 1 and a line when a gate does not hold.
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
