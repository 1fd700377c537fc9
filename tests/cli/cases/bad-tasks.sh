# Task files that cannot be used: status 3, one line that names file and line.
. "$CLI/shared.sh"
good='{"id": "1", "choices": [{"context": "It was", "continuation": " dark"}], "gold": 0}'

# refused TEXT REGEX: a file of a good line and TEXT
refused_task() {
    printf '%s\n%s\n' "$good" "$1" >t.jsonl
    run 3 matquant eval "$model" --tasks t.jsonl
    expect_one_error "^matquant: t\.jsonl: $2\$"
    gzip -kf t.jsonl
    run 3 matquant eval "$model" --tasks t.jsonl.gz --items items
    expect_one_error "^matquant: t\.jsonl\.gz: $2\$"
    expect_only t.jsonl t.jsonl.gz
}
refused_task 'not json' 'at byte [0-9]+: line 2: JSON is malformed'
refused_task '[]' 'line 2: not an object'
refused_task '{"choices": [], "gold": 0}' 'line 2: no string "id"'
refused_task '{"id": "2", "gold": 0}' 'line 2: no "choices"'
refused_task '{"id": "2", "choices": [], "gold": 0}' 'line 2: "choices" is no array of at least one'
refused_task '{"id": "2", "choices": [{"context": "It was"}], "gold": 0}' \
    'line 2: choice 0 is without a string "continuation"'
refused_task '{"id": "2", "choices": [{"context": "It was", "continuation": ""}], "gold": 0}' \
    'line 2: choice 0 has an empty continuation'
refused_task '{"id": "2", "choices": [{"context": "It was", "continuation": " a"}], "gold": 1}' \
    'line 2: "gold" is 1, but there are choices 0 to 0'
refused_task '{"id": "2", "choices": [{"context": " ", "continuation": "It"}], "gold": 0}' 'line 2: an empty context.*'
refused_task "{\"id\": \"2\", \"choices\": [{\"context\": \"It\", \"continuation\": \"$(printf '%2000s' | tr ' ' '~')\"}], \"gold\": 0}" \
    "line 2: a continuation of [0-9]+ tokens is longer than the model's 1024 positions"
printf '%s\n' "$good" >t.jsonl
run 2 matquant eval "$model" --tasks t.jsonl ./t.jsonl
expect_one_error '^matquant: ./t\.jsonl: the task is there twice$'
run 2 matquant eval "$model" --tasks t.jsonl --items items.jsonl.gz
expect_one_error '^matquant: items\.jsonl\.gz: the items are not gzipped: .*'
rm t.jsonl t.jsonl.gz
: >t.jsonl
run 3 matquant eval "$model" --tasks t.jsonl
expect_one_error '^matquant: t\.jsonl: there is no item in it$'
printf '%s\n' "$good" | gzip | head -c 40 >t.jsonl
run 3 matquant eval "$model" --tasks t.jsonl
expect_one_error '^matquant: t\.jsonl: .*gzip.*'
run 3 matquant eval "$model" --tasks none.jsonl
expect_one_error '^matquant: none\.jsonl: cannot open: No such file or directory$'

# A context that is too long is cut, counted, and said.
printf '{"id": "1", "choices": [{"context": "%s", "continuation": " dark"}], "gold": 0}\n%s\n' \
    "$(printf '%2000s' | tr ' ' '~')" "$good" >t.jsonl
run 0 matquant eval "$model" --tasks t.jsonl -q
expect_err "^matquant: warning: 1 of 2 items are longer than the model's 1024 positions: .*"
expect_out '^truncated +1 items$'

# A context that the tokenizer makes nothing of is as empty as one of white space.
rm -f t.jsonl
cp -r "$model" dropping
python3 - <<'PY'
import json
path = "dropping/tokenizer.json"
tokenizer = json.load(open(path))
tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "\u200b"}, "content": ""}
json.dump(tokenizer, open(path, "w"))
PY
printf '{"id": "1", "choices": [{"context": "\342\200\213", "continuation": " dark"}], "gold": 0}\n' >t.jsonl
run 3 matquant eval dropping --tasks t.jsonl
expect_one_error '^matquant: t\.jsonl: line 1: an empty context.*'
