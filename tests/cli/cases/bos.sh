# A beginning of sequence: where the tokenizer's template has one, it is the first token of every window, of every choice's
# context and of all calibration text, read or written; --no-bos leaves it out.
. "$CLI/shared.sh"
cp -r "$short_model" model
python3 - <<'PY'
import json, random, re
with open("model/tokenizer.json") as file:
    tokenizer = json.load(file)
tokenizer["post_processor"] = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}}
with open("model/tokenizer.json", "w") as file:
    json.dump(tokenizer, file)

# Words of one token each, so that the ids are known: 4 windows of 16, and of 15 behind the template's.
vocabulary = tokenizer["model"]["vocab"]
words = sorted(token for token in vocabulary if re.fullmatch("\u0120[a-z]{3,}", token))
text = random.Random(1).choices(words, k=64)
with open("words.txt", "w") as file:
    file.write("".join(text).replace("\u0120", " "))
ids = [vocabulary[word] for word in text]
with open("with.ids", "w") as file:
    for window in range(4):
        print(0, *ids[15 * window:15 * window + 15], file=file)
with open("without.ids", "w") as file:
    for window in range(4):
        print(*ids[16 * window:16 * window + 16], file=file)
PY

# measured NAME OPTION...: the perplexity of these four windows, as a file.
measured() {
    name=$1
    shift
    run 0 matquant eval model "$@" --seq-len 16 --windows 4 --json -q
    stdout | python3 -c 'import json, sys; print(json.load(sys.stdin)["perplexity"])' >"$name"
}
for ids in with without; do
    python3 "$tools/write_npy.py" $ids.npy <$ids.ids
    measured $ids.wanted --text $ids.npy
done
measured with --text words.txt
measured without --text words.txt --no-bos
for text in with without; do
    expect_same $text $text.wanted
done
cmp -s with without && fail "the token makes no difference"

# Of tasks: as if every context spelled the token, and as if there was no template.
mkdir spelled
python3 "$tools/make_tasks.py" "$DATA/demo-eval.txt" 5 >task.jsonl
sed 's/"context": "/&<s>/g' task.jsonl >spelled/task.jsonl
run 0 matquant eval model --tasks task.jsonl --items with.jsonl -q
run 0 matquant eval "$short_model" --tasks spelled/task.jsonl --items spelled.jsonl -q
expect_same with.jsonl spelled.jsonl
run 0 matquant eval model --tasks task.jsonl --items without.jsonl --no-bos -q
run 0 matquant eval "$short_model" --tasks task.jsonl --items plain.jsonl -q
expect_same without.jsonl plain.jsonl
cmp -s with.jsonl without.jsonl && fail "the token makes no difference to a task"

# Of calibration text that the model writes, from pieces of a file and from nothing: as the state of a run keeps it.
zcat "$DATA/demo-calib.jsonl.gz" | head -3 >text.jsonl
kept() {
    run 5 python3 "$tools/signal_after.py" INT '^learn .*block 1/3' matquant quantize model -o out --state "$@" \
        --seq-len 64 --epochs 1 --group-size 32 --gemm openblas
}
kept file --calib text.jsonl --samples 6
expect_err 'the model goes on from pieces of it and writes [0-9]+ more'
kept file-bare --calib text.jsonl --samples 6 --no-bos
kept self --calib self --samples 2 --no-extend
kept self-bare --calib self --samples 2 --no-extend --no-bos
python3 - "$tools" <<'PY' || fail "how the sequences begin"
import array, sys
sys.path.append(sys.argv[1])
from checkpoint import read_tensors
def beginnings(folder):
    _, (_, length), data = read_tensors(folder)["ids"]
    ids = array.array("i", data)
    return list(zip(ids[::length], ids[1::length]))
assert all(first == 0 != second for first, second in beginnings("file")), beginnings("file")
assert all(first == 0 for first, _ in beginnings("self")), beginnings("self")
for folder in "file-bare", "self-bare":
    assert all(first != 0 for first, _ in beginnings(folder)), beginnings(folder)
PY
