# --json of every verb: one object, nothing else on stdout, whose members are those of the man page, with their types; and the man
# page has none that no verb prints.
. "$CLI/shared.sh"
printed() { # VERB: what the last command printed is one of its objects
    stdout >>"$1.jsonl"
    echo , >>"$1.jsonl"
}
run 0 matquant quantize "$short_model" -o out $small --refit-bits 4,2 --qat --qat-tokens 64 --state state --json -q
expect_no_err
printed quantize
run 0 matquant quantize "$short_model" -o other $small --bits '8,4,2,8>2' --json --dry-run
printed quantize
expect_only out quantize.jsonl
run 0 matquant slice out -o s4 --bits 4 --json -q
printed slice
run 0 matquant slice out -o gptq --bits 4 --format gptq --json -q # which does not hold it exactly
printed slice
for item in 1 2; do
    echo '{"id": "'$item'", "gold": 0, "choices": [{"context": "One and", "continuation": " two"},
        {"context": "One and", "continuation": " three"}]}' | tr -d '\n'
    echo
done >few.jsonl
run 0 matquant eval s4 --text "$DATA/demo-eval.txt" --seq-len 32 --windows 2 --reference "$short_model" --tasks few.jsonl --json -q
printed eval
run 0 matquant eval out --bits 8,2 --text "$DATA/demo-eval.txt" --seq-len 32 --windows 1 --json -q
printed eval
run 0 matquant eval "$short_model" --text "$DATA/demo-eval.txt" --seq-len 32 --windows 1 --json -q
printed eval
run 0 matquant quantize "$short_model" -o mixed --recipe rtn --group-size 96 --group-fallback 32 --json -q
printed quantize
for folder in "$short_model" out s4 mixed; do
    run 0 matquant inspect $folder --json
    printed inspect
done
run 0 matquant verify out --against "$short_model" --json -q
printed verify
run 0 matquant verify out --json -q
printed verify

python3 - "$CLI/../../docs/matquant.1" <<'PY' || fail "members and man page differ"
import json, re, sys
page = open(sys.argv[1], encoding="utf-8").read().replace("\\-", "-")
TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "null": type(None)}
wrong = []


def walk(value, path, found):
    if isinstance(value, list):
        for item in value:
            walk(item, path + "[]", found)
        return
    if path:
        found.append((path, value))
    if isinstance(value, dict) and path != "provenance":
        for key, item in value.items():
            walk(item, (path + "." if path else "") + key, found)


def fits(value, types):
    if isinstance(value, bool):
        return "boolean" in types
    return any(isinstance(value, TYPES[name]) for name in types)


for verb in "quantize", "slice", "eval", "inspect", "verify":
    section = re.search(r"\.SS Members of %s\n.*?\.nf\n(.*?)\n\.fi" % verb, page, re.S).group(1)
    documented = {line.split()[0]: line.split()[1].split("|") for line in section.splitlines()}
    found = []
    for value in json.loads("[" + open(verb + ".jsonl", encoding="utf-8").read().rstrip().rstrip(",") + "]"):
        for one in value.get("results", [value]):
            walk(one, "", found)
    found = [(path, value) for path, value in found if not path.endswith("[]") and path != "mean"]
    wrong += ["%s: %s is %r" % (verb, path, value) for path, value in found
              if path not in documented or not fits(value, documented[path])]
    wrong += ["%s: nothing has %s" % (verb, path) for path in documented.keys() - {path for path, _ in found}]
print(*wrong, sep="\n")
sys.exit(bool(wrong))
PY

# A name that is no UTF-8 does not break it.
odd=$(printf 'm\351m')
cp -r out "$odd"
run 0 matquant inspect "$odd" --json
stdout | python3 -c 'import json, sys; json.load(sys.stdin)["folder"]' || fail "not JSON"
