# Beside the smallest of models it is the files that are copied that take the most memory: it is predicted, too.
. "$CLI/shared.sh"
run 0 python3 "$tools/make_random_model.py" tiny "$model" tiny
enough() { stdout | python3 -c 'import json, sys
report = json.load(sys.stdin)
sys.exit(not report["memory_peak"] <= report["memory_predicted"] <= 1.1 * report["memory_peak"])'; }
run 0 matquant quantize tiny -o out --recipe rtn --group-size 32 --json -q
enough || fail "recipe rtn: $(stdout | grep memory)"
run 0 matquant quantize tiny -o out $small --force --json -q
enough || fail "recipe best: $(stdout | grep memory)"
