# needs: master
# eval --tasks: the table, --json, --items, --min-acc, several files in every way to name them, alone and with a text.
. "$CLI/shared.sh"
mkdir tasks
python3 "$tools/make_tasks.py" "$DATA/demo-eval.txt" 9 >tasks/one.jsonl
python3 "$tools/make_tasks.py" "$DATA/demo-eval.txt" 4 | gzip >tasks/two.jsonl.gz

run 0 matquant eval "$model" --tasks tasks/*
expect_out '^task +items +acc +stderr +acc_norm +stderr$'
expect_out '^one +9 +[01]\.[0-9]{4} +0\.[0-9]{4} +[01]\.[0-9]{4} +0\.[0-9]{4}$'
expect_out '^two +4 '
expect_out '^mean +13 +[01]\.[0-9]{4} '
expect_out '^time '
stdout >table
if grep -q '^perplexity' table; then fail "a perplexity without a text"; fi
# All ways of naming several files, and the model behind them.
for line in "--tasks tasks/one.jsonl --tasks=tasks/two.jsonl.gz $model" \
    "--tasks tasks/one.jsonl tasks/two.jsonl.gz -- $model" "--tasks tasks/one.jsonl tasks/two.jsonl.gz -q $model"; do
    run 0 matquant eval $line
    stdout | grep -v '^time' >again
    grep -v '^time' table | cmp - again || fail "another table: $line"
done

# Both at once, as JSON; the master at a width and the slice of that width agree to the last bit. --seq-len says how
# many tokens pass the blocks at once, and some BLAS kernels round products of other shapes otherwise.
run 0 matquant slice "$FIXTURES/master/m" -o s4 --bits 4 -q
run 0 matquant eval s4 --tasks tasks/* --items slice.jsonl --seq-len 32 -q
expect_no_err
run 0 matquant eval "$FIXTURES/master/m" --bits 4 --tasks tasks/* --items master.jsonl --text "$DATA/demo-eval.txt" \
    --seq-len 32 --windows 1 --json -q
expect_same slice.jsonl master.jsonl
stdout >both.json
python3 - both.json master.jsonl tasks/one.jsonl <<'END' || fail "JSON and items do not agree"
import json, sys
result = json.load(open(sys.argv[1]))
rows = [json.loads(line) for line in open(sys.argv[2])]
items = [json.loads(line) for line in open(sys.argv[3])]
assert result["perplexity"] > 1 and result["windows"] == 1 and result["bits"] == 4
assert [task["task"] for task in result["tasks"]] == ["one", "two"]
assert [task["items"] for task in result["tasks"]] == [9, 4]
assert result["tasks"][1]["file"] == "tasks/two.jsonl.gz" and result["tasks"][1]["choices"] == 8
assert len(rows) == 13 and result["task_tokens"] > 13 and result["task_seconds"] > 0
for item, row in zip(items, rows):
    assert row["task"] == "one" and row["id"] == item["id"] and row["gold"] == item["gold"] and not row["truncated"]
    assert row["bytes"] == [len(choice["continuation"].encode()) for choice in item["choices"]]
    values, norms = row["loglikelihood"], [v / b for v, b in zip(row["loglikelihood"], row["bytes"])]
    assert all(value < 0 for value in values) and all(count > 0 for count in row["tokens"])
    assert row["answer"] == values.index(max(values)) and row["answer_norm"] == norms.index(max(norms))
for task in result["tasks"]:
    mine = [row for row in rows if row["task"] == task["task"]]
    for key, answer in (("acc", "answer"), ("acc_norm", "answer_norm")):
        share = sum(row[answer] == row["gold"] for row in mine) / len(mine)
        assert abs(task[key] - share) < 1e-12
        assert abs(task[key + "_stderr"] - (share * (1 - share) / (len(mine) - 1)) ** 0.5) < 1e-12
    assert task["tokens"] == sum(sum(row["tokens"]) for row in mine) and task["truncated"] == 0
assert abs(result["mean"]["acc"] - sum(task["acc"] for task in result["tasks"]) / 2) < 1e-12
END

# An items file that is there is kept without --force, and seen before anything is computed.
run 2 matquant eval "$model" --tasks tasks/* --items slice.jsonl
expect_one_error '^matquant: slice\.jsonl: the output exists already; --force replaces it$'
expect_same slice.jsonl master.jsonl
run 0 matquant eval "$model" --tasks tasks/* --items slice.jsonl --force --max-items 2 -q
[ "$(wc -l <slice.jsonl)" = 4 ] || fail "not two items of each task"
run 2 matquant eval "$model" --tasks tasks/one.jsonl --items tasks/one.jsonl --force
expect_one_error "^matquant: tasks/one\.jsonl: the items are a task's file\$"

# Nor do they replace the text, or a file of a model that is read.
cp "$DATA/demo-eval.txt" text.txt
for force in "" --force; do # which is not advised, since it is not enough
    run 2 matquant eval "$model" --tasks tasks/one.jsonl --text text.txt --items text.txt $force
    expect_one_error "^matquant: text\.txt: the items are the text's file\$"
done
expect_same text.txt "$DATA/demo-eval.txt"
cp -r "$model" own
run 2 matquant eval own/ --tasks tasks/one.jsonl --items own/model.safetensors --force
expect_one_error "^matquant: own/model\.safetensors: the items would be a file of the model's folder\$"
run 2 matquant eval "$model" --reference own --text text.txt --tasks tasks/one.jsonl --items own/new.jsonl
expect_one_error "^matquant: own/new\.jsonl: the items would be a file of the model's folder\$"
expect_same own/model.safetensors "$model/model.safetensors"
rm -r own text.txt
expect_only tasks table again s4 slice.jsonl master.jsonl both.json

# The gate.
run 0 matquant eval "$model" --tasks tasks/* --min-acc 0 -q
expect_no_err
run 1 matquant eval "$model" --tasks tasks/* --min-acc 1 --max-ppl 1.5 --text "$DATA/demo-eval.txt" --seq-len 32 \
    --windows 1 --json -q
expect_err '^matquant: perplexity is [0-9.e+]+, and --max-ppl allows 1\.5$'
expect_err '^matquant: the mean accuracy is 0\.[0-9]+, and --min-acc demands 1$'
stdout | python3 -m json.tool >/dev/null || fail "not JSON"

# Being asked to stop, long before this many items are done, whether it reads them still or runs them.
python3 "$tools/make_tasks.py" "$DATA/demo-eval.txt" 12000 >long.jsonl
run 5 python3 "$tools/signal_after.py" INT 2 matquant eval "$model" --tasks long.jsonl --items none --batch 1 --seq-len 64
expect_no_out
expect_err '^matquant: .*interrupted.*'
[ ! -e none ] || fail "an items file"
