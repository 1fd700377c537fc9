# --fast: recipe best with few sequences, of which the line changes what it names; the narrowest trained width is refitted.
. "$CLI/shared.sh"
model=$short_model
fast="--calib $DATA/demo-calib.jsonl.gz --seq-len 32 --group-size 64 --gemm openblas --fast"

# made EXPECTED OPTION...: what the provenance of a run says: samples, epochs, fold, compensate, preset; of the refit the passes,
# the widths and the tokens that each was trained on.
made() {
    wanted=$1
    shift
    run 0 matquant quantize "$model" -o out $fast "$@" --force -q
    said=$(python3 -c 'import json
made = json.load(open("out/matquant.json"))
recipe, refit = made["recipe"], made.get("refit") or {"epochs": 0, "widths": []}
print(recipe["samples"], recipe["epochs"], recipe.get("fold", False), recipe.get("compensate", False),
      recipe.get("preset"), refit["epochs"],
      *("%d:%d" % (width["bits"], width["trained_tokens"]) for width in refit["widths"]))')
    [ "$said" = "$wanted" ] || fail "$*: $said"
}

made "4 1 False True wide 1 2:1280"
verified out
made "6 1 True True wide 1 4:640" --samples 6 --fold --bits 8,4 # int4's share of the tokens is a half
made "4 2 False False narrow 1 8:32 3:256" --epochs 2 --preset narrow --no-compensate --refit-tokens 512 --refit-bits 8,3
made "4 1 False True None 0" --lambda 7,2,1 --no-refit

run 2 matquant quantize "$model" -o other $fast --recipe paper
expect_one_error "^matquant quantize: --fast is for recipe best"
run 2 matquant quantize "$model" -o other $fast --no-refit --refit-tokens 640
expect_one_error "^matquant: --refit-bits, --refit-tokens and --refit-epochs want the refit"
[ ! -e other ] || fail "an output of a refused run"
