# What the line says holds, wherever it stands; the rest is the recipe's. Seen in the result and in the provenance.
. "$CLI/shared.sh"
field() { stdout | python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
rest="--calib $DATA/demo-calib.jsonl.gz --samples 4 --seq-len 32 --group-size 32 --dry-run --json -q"
run 0 matquant quantize "$model" -o out $rest --recipe paper
[ "$(field loss) $(field slice_rule)" = "l2 round" ] || fail "not the recipe's"
run 0 matquant quantize "$model" -o out --loss relative $rest --recipe paper
[ "$(field loss) $(field slice_rule)" = "relative round" ] || fail "the line did not prevail"
run 0 matquant quantize "$model" -o out $rest --bits 4,8 --lambda 1,2
[ "$(stdout | python3 -c 'import json, sys
print([(w["bits"], w["lambda"]) for w in json.load(sys.stdin)["widths"]])')" = "[(8, 2), (4, 1)]" ] ||
    fail "--lambda is not beside its --bits"
run 0 matquant quantize "$model" -o out $rest --bits 8,6,3
[ "$(stdout | python3 -c 'import json, sys
print([(w["bits"], w["lambda"]) for w in json.load(sys.stdin)["widths"]])')" = "[(8, 10), (6, 6.5), (3, 2)]" ] ||
    fail "widths that the recipe has no weight for"
expect_only
