# needs: master
# Several widths in one run: what each of them gives alone, in the order of --bits.
. "$CLI/shared.sh"
master=$FIXTURES/master/m
text="--text $DATA/demo-eval.txt --seq-len 32 --windows 2 -q"
echo '{"id": "1", "gold": 0, "choices": [{"context": "It was", "continuation": " a"}, {"context": "It was", "continuation": " dark"}]}' \
    >t.jsonl

run 0 matquant eval "$master" --bits 2,8 $text --reference "$model" --tasks t.jsonl --json
stdout >several
for width in 2 8; do
    run 0 matquant eval "$master" --bits $width $text --reference "$model" --tasks t.jsonl --json
    stdout >one$width
done
python3 - <<'PY' || fail "together they are not what they are alone"
import json
def of(path):
    return json.load(open(path))
def plain(result):
    return {key: value for key, value in result.items() if not key.endswith("seconds")}
several = of("several")
assert list(several) == ["results"]
assert [plain(result) for result in several["results"]] == [plain(of("one2")), plain(of("one8"))]
PY

run 0 matquant eval "$master" --bits 8,4,2 $text --reference "$model"
expect_out '^bits +perplexity +stderr +KL divergence +top-1 agreement$'
[ "$(stdout | grep -c '^[248]  .*%$')" = 3 ] || fail "not three rows"
run 0 matquant eval "$master" --bits 8,4 $text --reference "$model" --tasks t.jsonl
expect_out '^bits +perplexity +stderr +KL divergence +top-1 agreement +mean acc +stderr +mean acc_norm +stderr$'
run 0 matquant eval "$master" --bits 8,4 --tasks t.jsonl -q
expect_out '^bits +mean acc +stderr +mean acc_norm +stderr$'

# A gate is for each; what passes says nothing.
perplexity=$(python3 -c 'import json; print(json.load(open("one8"))["perplexity"] * 1.001)')
run 1 matquant eval "$master" --bits 8,2 $text --max-ppl "$perplexity"
expect_err '^matquant: at 2 bits perplexity is .*, and --max-ppl allows .*$'
expect_out '^2  .*'
run 0 matquant eval "$master" --bits 8 $text --max-ppl "$perplexity"
expect_no_err

# Each goes into the provenance; a plain model has no widths.
cp -r "$master" own
run 0 matquant eval own --bits 8,4 $text --record
run 0 matquant inspect own --json
[ "$(stdout | grep -c '"perplexity"')" = 2 ] || fail "not two results are recorded"
run 2 matquant eval "$model" --bits 8,4 $text
expect_no_out

# A width that is not there is refused before the others are measured.
run 0 matquant slice "$master" -o four --bits 4 --format matquant -q
run 2 matquant eval four --bits 4,2 $text
expect_no_out
