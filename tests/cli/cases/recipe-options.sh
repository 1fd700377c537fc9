# What the line says holds, wherever it stands; the rest is the recipe's. Seen in the result and in the provenance.
. "$CLI/shared.sh"
model=$short_model
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
# Options of a refit that there is none of are not passed over.
for line in "--recipe paper --refit-bits 4" "--recipe paper --refit-tokens 64" "--no-refit --refit-epochs 2"; do
    run 2 matquant quantize "$model" -o out $rest $line
    expect_one_error '^matquant: .*want the refit, which is off.*'
done
# Nor is any other that changes nothing, given with the value that it has anyway or not.
no_use() { # WITHOUT OPTION LINE...
    run 2 matquant quantize "$model" -o out $3
    expect_one_error "^matquant quantize: $1 has no use for $2 \\(see matquant quantize --help\\)\$"
}
for option in "--samples 64" "--seq-len 32" --no-bos "--bits 8,4,2" "--lambda 10,3,1" "--loss relative" "--epochs 4" \
    "--batch 2" "--periods 8,2,1" "--seed 0" "--rate 1" "--early-stop 0" --sampled; do
    no_use 'recipe rtn, which learns nothing,' "${option%% *}" "--recipe rtn $option"
done
for option in "--refit-batch 1" --extend; do
    no_use 'a run without the refit and --qat' "${option%% *}" "$rest --no-refit $option"
    run 0 matquant quantize "$model" -o out $rest --no-refit --qat $option
done
no_use '--sampled, which draws the widths,' --periods "$rest --sampled --periods 4,1,1"
run 0 matquant quantize "$model" -o out $rest --sampled --periods 4,1,1 --qat
no_use 'a run without 8 among --bits' --compensate "$rest --bits 4,2 --compensate"
no_use '--sampled, which draws the widths,' --periods "$rest --sampled --qat --bits 4,2 --periods 2,1"
no_use 'a run that learns one width' --periods "$rest --bits 8 --periods 3"
no_use 'a run that learns one width' --periods "$rest --bits 8,2,8:2 --lambda 0,1,1 --periods 4,1"
for bits in "0,1" "1,0"; do
    no_use 'a run that learns one width' --periods "$rest --bits 8,4 --lambda $bits --periods 3,1"
done
# As many as there are widths, and pairs have none; the recipe's own numbers, and those of the line, are what is recorded.
run 2 matquant quantize "$model" -o out $rest --bits 8,4,2,8:2 --periods 8,2,1,1
expect_one_error '^matquant quantize: --periods has 4 numbers, but --bits 3 widths .*'
run 2 matquant quantize "$model" -o out $rest --periods 8,2,2
expect_one_error '^matquant: --periods: one width that has a weight must be visited on every step$'
no_use 'recipe rtn, which learns nothing,' --bits "--recipe rtn --embeddings 8 --bits 8,2"
no_use '--group-size 0, a row a group,' --group-fallback "--recipe rtn --group-fallback 32 --group-size 0"
# Embeddings are weighed by the widths, whatever the recipe.
run 0 matquant quantize "$model" -o out --recipe rtn --embeddings nested --bits 8,2 --lambda 1,1 --dry-run
run 2 matquant quantize "$model" -o out --recipe rtn --refit
expect_one_error '^matquant: recipe rtn learns nothing: it has no use for --refit$'
run 0 matquant quantize "$model" -o out $rest --recipe paper --refit --refit-bits 3
expect_only
# Co-distillation: terms of --bits beside the widths, with a weight each; a width in a pair alone has no loss of its own.
terms() { stdout | python3 -c 'import json, sys
out = json.load(sys.stdin)
print([(w["bits"], w["lambda"]) for w in out["widths"]],
      [(t["teacher"], t["student"], t["lambda"]) for t in out["codistill"]])'; }
run 0 matquant quantize "$model" -o out $rest --recipe paper --bits '8>2,8,4,2' --lambda 5,1,2,3
[ "$(terms)" = "[(8, 1), (4, 2), (2, 3)] [(8, 2, 5)]" ] || fail "--lambda is not beside the terms of --bits"
run 0 matquant quantize "$model" -o out $rest --recipe paper --bits 8,4,8:4,8:2
[ "$(terms)" = "[(8, 0.1), (4, 0.1), (2, 0)] [(8, 4, 0.1), (8, 2, 1)]" ] || fail "not the recipe's weights"
run 2 matquant quantize "$model" -o out $rest --recipe paper --bits '8,4,2>8'
expect_one_error '^matquant: --bits 2>8: the width that is learned from must be the wider$'
run 2 matquant quantize "$model" -o out $rest --recipe paper --bits '8,4,8>2>2'
expect_one_error '^matquant quantize: .*--bits.*pairs.*'
run 2 matquant quantize "$model" -o out $rest --recipe paper --refit-bits '8>2'
expect_one_error '^matquant quantize: .*--refit-bits.*whole numbers.*'
# A preset is a --lambda by its name, for the widths that --bits has; the provenance knows it, and only where it holds.
widths() { stdout | python3 -c 'import json, sys
out = json.load(sys.stdin)
print(out["preset"], [w["lambda"] for w in out["widths"]])'; }
run 0 matquant quantize "$model" -o out $rest
[ "$(widths)" = "balanced [10, 3, 1]" ] || fail "not the default preset"
for size in 0:wide 128:balanced; do # the last that is given counts
    run 0 matquant quantize "$model" -o out $rest --group-size ${size%:*}
    case "$(widths)" in "${size#*:} "*) ;; *) fail "another preset with groups of ${size%:*}: $(widths)" ;; esac
done
run 0 matquant quantize "$model" -o out $rest --group-size 0 --preset balanced
[ "$(widths)" = "balanced [10, 3, 1]" ] || fail "a preset that was given does not hold with a row a group"
run 0 matquant quantize "$model" -o out $rest --preset narrow --bits 8,6,3,2
[ "$(widths)" = "narrow [3, 2.5, 1.5, 1]" ] || fail "not narrow's straight lines"
run 0 matquant quantize "$model" -o out $rest --preset wide
[ "$(widths)" = "wide [40, 6, 1]" ] || fail "not wide's"
run 0 matquant quantize "$model" -o out $rest --lambda 40,6,1
[ "$(widths)" = "None [40, 6, 1]" ] || fail "a --lambda of one's own has a name"
run 0 matquant quantize "$model" -o out --recipe rtn --group-size 0 --dry-run --json -q
[ "$(widths)" = "None [10, 3, 1]" ] || fail "recipe rtn has other weights with a row a group"
run 0 matquant quantize "$model" -o out $rest --recipe paper
[ "$(widths)" = "None [0.1, 0.1, 1]" ] || fail "recipe paper has a preset"
for line in "--recipe paper --preset balanced" "--recipe paper --preset wide"; do
    run 2 matquant quantize "$model" -o out $rest $line
    expect_one_error "^matquant: --preset is recipe best's: .*"
done
run 2 matquant quantize "$model" -o out --recipe rtn --preset narrow
expect_one_error "^matquant: --preset is recipe best's: .*"
expect_only
recorded() { python3 -c 'import json, sys
recipe = json.load(open("out/matquant.json"))["recipe"]
print(recipe.get("preset"), recipe["lambda"])'; }
run 0 matquant quantize "$model" -o out $small --no-refit --preset wide -q
[ "$(recorded)" = "wide [40, 6, 1]" ] || fail "not in the provenance"
run 0 matquant quantize "$model" -o out $small --no-refit --lambda 40,6,1 --force -q
[ "$(recorded)" = "None [40, 6, 1]" ] || fail "a --lambda of one's own has a name in the provenance"
# The widths' periods: the recipe's, where the narrowest that learns is visited on every step, or the line's.
periods() { # EXPECTED OPTION...
    wanted=$1
    shift
    run 0 matquant quantize "$model" -o out $small --no-refit "$@" --force -q
    said=$(python3 -c 'import json; print(json.load(open("out/matquant.json"))["recipe"]["periods"])')
    [ "$said" = "$wanted" ] || fail "periods of $*: $said"
}
periods '[8, 1, 1]'
periods '[8, 1]' --bits 8,4
periods '[8, 1, 1, 1]' --bits 8,5,3,2
periods '[1, 1, 1]' --lambda 10,0,0
periods '[3, 1, 2]' --bits 4,8,2 --periods 1,3,2
periods '[1, 1, 1]' --recipe paper
# A block that stops early says after how many of its epochs; one that could not is not asked.
epochs() { python3 -c 'import json
made = json.load(open("out/matquant.json"))
print(made["recipe"].get("early_stop"), [block.get("epochs") for block in made["blocks"]][0])'; }
run 0 matquant quantize "$model" -o out $small --no-refit --epochs 5 --early-stop 100 --force -q
[ "$(epochs)" = "100 2" ] || fail "not stopped after the second epoch: $(epochs)"
run 0 matquant quantize "$model" -o out $small --no-refit --force -q
[ "$(epochs)" = "None None" ] || fail "stopped unasked"
# Recipe paper's feed-forward networks alone: nothing else has codes, and the attention's weights are the source's.
run 0 matquant quantize "$model" -o ffn $small --recipe paper --scope ffn -q
python3 - "$tools" "$model" <<'PY' || fail "--scope ffn quantizes something else"
import sys
sys.path.insert(0, sys.argv[1])
from checkpoint import read_tensors
source, made = read_tensors(sys.argv[2]), read_tensors("ffn")
codes = {name[:-6] for name in made if name.endswith(".codes")}
assert codes == {name[:-7] for name in source if ".mlp." in name}, codes
assert all(made[name] == tensor for name, tensor in source.items() if ".mlp." not in name)
PY
# One width a step, which the provenance says and the codes show; the same again with the same seed.
run 0 matquant quantize "$model" -o drawn $small --no-refit --sampled -q
run 0 matquant quantize "$model" -o again $small --no-refit --sampled -q
grep -q '"sampled": *true' drawn/matquant.json || fail "not in the provenance"
expect_same drawn/model.safetensors again/model.safetensors
! cmp -s out/model.safetensors drawn/model.safetensors || fail "drawn widths learn what all learn"
run 2 matquant quantize "$model" -o no $small --sampled --early-stop 1
expect_one_error '^matquant: --early-stop compares .*--sampled.*'
# A --rate multiplies what the recipe has, and the provenance says what came out.
rates() { python3 -c 'import json
recipe = json.load(open("out/matquant.json"))["recipe"]
print(recipe["rate_group"], recipe["rate_rounding"])'; }
once=$(rates)
# As does Adam's epsilon, by the model's size and the tokens of a step.
python3 - out/matquant.json "$model/config.json" <<'PY' || fail "another epsilon"
import json, math, sys
recipe, config = (json.load(open(path)) for path in sys.argv[1:])
recipe = recipe["recipe"]
tokens = min(recipe["batch"], recipe["samples"]) * recipe["seq_len"]
expected = 1e-8 * (576 / config["hidden_size"]) ** 1.5 * math.sqrt(1024 / tokens)
assert abs(recipe["epsilon"] / expected - 1) < 1e-12, (recipe["epsilon"], expected)
PY
run 0 matquant quantize "$model" -o out $small --no-refit --rate 2 --force -q
python3 -c 'import sys
once, twice = ([float(x) for x in rates.split()] for rates in sys.argv[1:])
sys.exit([2 * x for x in once] != twice)' "$once" "$(rates)" || fail "not twice $once: $(rates)"

# Rates at which learning diverges are to blame for it, not the model.
diverging="$small --no-refit --epochs 4 --batch 1"
run 2 matquant quantize "$model" -o none $diverging --rate 1000 -q
expect_one_error '.*tensor model\.layers\.0\..*: with --rate 1000 what was learned does not fit in float16$'
run 0 matquant quantize "$model" -o out $diverging --rate 100 --force -q
expect_err 'warning: weights of [0-9]+ linear layers .* are too small for scales in float16, or --rate 100 is too high: 8 bits are '

# Groups: 128, or 64 or 32 where these divide all rows that are quantized and 128 does not, with a fallback, too; else the one that
# divides most. (The golden model's are 32 and 40.)
golden=$GOLDEN/models/llama
run 0 matquant quantize "$model" -o auto --recipe rtn --force -q
expect_out '^quantized .*, groups of 128$'
run 0 matquant quantize "$golden" -o auto --recipe rtn --include self_attn --force -q
expect_out '^quantized .*, groups of 32$'
run 0 matquant inspect auto
expect_out '^group size +32$'
run 3 matquant quantize "$golden" -o none --recipe rtn --include self_attn --group-size 128
expect_one_error '.*group size 128 does not divide its 32 inputs; --group-size or --group-fallback 32 would$'
run 3 matquant quantize "$golden" -o none --recipe rtn
expect_one_error '.*group size 32 does not divide its 40 inputs; --group-size or --group-fallback 0 would$'
run 0 matquant quantize "$golden" -o auto --recipe rtn --group-fallback 8 --force -q
expect_out '^quantized .*, groups of 32$'
run 0 matquant quantize "$golden" -o auto --recipe rtn --group-fallback 8 --include self_attn --force -q
expect_out '^quantized .*, groups of 32$'
run 0 matquant quantize "$golden" -o auto --recipe rtn --group-fallback 8 --include down_proj --force -q
expect_out '^quantized .*, groups of 128$'
run 0 matquant quantize "$model" -o auto --recipe rtn --group-fallback 0 --force -q
expect_out '^quantized .*, groups of 128$'

# A pattern that no layer matches is a slip of the pen.
run 2 matquant quantize "$model" -o none --recipe rtn --exclude self_atn
expect_one_error "^matquant: --exclude 'self_atn' matches no linear layer of the blocks, such as model\.layers\.0\.mlp\.up_proj; .*"
run 2 matquant quantize "$model" -o none --recipe rtn --include q_proj --include lm_head
expect_one_error "^matquant: --include 'lm_head' matches no linear layer .*"
