# --calib self: text sampled from the model, the same for the same seed; a dry run samples none. As much as the refit has
# use for (28 sequences and one to measure on), or as the blocks learn from.
. "$CLI/shared.sh"
model=$short_model
self="matquant quantize $model --calib self --samples 4 --seq-len 32 --epochs 1 --group-size 32
    --gemm openblas -q --json" # no measurement decides about bytes or memory
number() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1" "$2"; }
run 0 $self -o out --dry-run
expect_only
for folder in one two; do
    run 0 $self -o $folder
    stdout >$folder.json
done
diff -r one two || fail "two runs differ"
verified one
python3 - <<'PY' || fail "the provenance does not say so"
import json
calibration = json.load(open("one/matquant.json"))["calibration"]
assert calibration["self"] is True and calibration["tokens"] == 29 * 32 and not calibration["files"], calibration
assert "written_tokens" not in calibration, calibration
PY
run 0 $(echo "$self" | sed 's/ --json//') -o shown
expect_out "^calibration +$((29 * 32)) tokens that the model wrote\$"
run 0 $self -o less --no-extend
[ "$(stdout | python3 -c 'import json, sys; print(json.load(sys.stdin)["calibration_tokens"])')" = 128 ] || fail "--no-extend"
run 0 $self -o other --seed 1
if cmp -s one/model.safetensors other/model.safetensors; then fail "another seed changed nothing"; fi

# What is sampled needs the whole model and a cache: the dry run has counted it.
for length in 32 1024; do
    run 0 $self -o more --seq-len $length --batch 1 --no-refit --dry-run --force
    stdout >dry.json
    run 0 $self -o more --seq-len $length --batch 1 --no-refit --force
    stdout >wet.json
    [ "$(number wet.json memory_peak)" -le "$(number dry.json memory_predicted)" ] ||
        fail "peak $(number wet.json memory_peak), predicted $(number dry.json memory_predicted)"
done
