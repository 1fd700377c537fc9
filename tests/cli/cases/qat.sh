# Codes trained end to end: the master is whole, the result and the provenance say what it did to every width, and its options
# are not passed over.
. "$CLI/shared.sh"
model=$short_model
run 0 matquant quantize "$model" -o out $small --qat --qat-tokens 256 --qat-rate 0.01 --no-refit --json -q
stdout | python3 -c 'import json, sys
qat = json.load(sys.stdin)["qat"]
made = json.load(open("out/matquant.json"))["qat"]
assert [w["bits"] for w in qat["widths"]] == [8, 7, 6, 5, 4, 3, 2] == [w["bits"] for w in made["widths"]]
assert (made["rate"], made["trained_tokens"], made["kept_epoch"]) == (0.01, qat["trained_tokens"], qat["kept_epoch"])
assert made["trained_tokens"] >= 256
assert (qat["kept_epoch"] > 0) == (qat["moved_codes"] > 0) == (qat["loss_after"] < qat["loss_before"])
' || fail "the result"
verified out
run 0 matquant quantize "$model" -o two $small --qat --zero-point symmetric --bits 4,2 -q
verified two
run 0 matquant slice two -o gptq --bits 4 --format gptq
for line in "--qat-tokens 64" "--qat-rate 0.1" "--qat-epochs 2"; do
    run 2 matquant quantize "$model" -o no $small $line
    expect_one_error '^matquant: .*want --qat$'
done
run 2 matquant quantize "$model" -o no $small --qat --bits 8
expect_one_error '^matquant: --qat wants a width below 8 .*'
run 2 matquant quantize "$model" -o no $small --qat --recipe paper --let
expect_one_error '^matquant: --qat .*--let.*'
run 2 matquant quantize "$model" -o no $small --qat --bits '8,2,8>2'
expect_one_error '^matquant: --qat learns from full precision alone.*'
run 2 matquant quantize "$model" -o no $small --qat --qat-tokens 8
expect_one_error '^matquant: --qat-tokens 8 is less than one sequence.*'
run 2 matquant quantize "$model" -o no --recipe rtn --qat
expect_one_error '^matquant: recipe rtn learns nothing: it has no use for --qat$'
