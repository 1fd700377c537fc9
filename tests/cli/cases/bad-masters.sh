# needs: master
# Masters that a reader must reject, and what verify finds in those that can be read.
. "$CLI/shared.sh"
master=$FIXTURES/master/m

# rejected DEFECT REGEX: by every verb that reads masters; to verify, what can be told apart is a problem found.
rejected() {
    broken "$1" "$master"
    for verb in "slice in -o out --bits 4" "eval in --bits 4 --text $DATA/demo-eval.txt --seq-len 32 --windows 1 -q" \
        "inspect in"; do
        run 3 matquant $verb
        expect_one_error "^matquant: $2\$"
        expect_only in
    done
    run "${3:-1}" matquant verify in -q
    expect_err "^matquant: (warning: )?$2\$"
    expect_only in
}
prefix='tensor model\.layers\.1\.mlp\.up_proj'
weights='in/model\.safetensors'
rejected missing-scales "$weights: $prefix\.scales\.w4: is missing: config\.json says that 4 bits are served"
rejected missing-codes "$weights: $prefix\.scales\.w8: has no codes beside it .*"
rejected codes-dtype "$weights: $prefix\.codes: codes are U8 of two dimensions, these are I8 .*"
rejected format-version 'in/config\.json: format_version is 999, this program reads up to .*' 3
rejected slice-rule 'in/config\.json: slice_rule is "floor", known are .*' 3
rejected width-list 'in/config\.json: widths must be whole numbers from 8 down to 2, each once and descending' 3
rejected truncated "$weights: tensor .*\"data_offsets\" [0-9]+ to [0-9]+ are not within the [0-9]+ bytes of data" 3

# found DEFECT REGEX: verify ends with 1 and a line for each problem.
found() {
    broken "$1" "$master"
    run 1 matquant verify in --against "$model" -q
    expect_err "$2"
    expect_out '^problems +[1-9]'
    run 1 matquant verify in --json -q
    stdout | python3 -c 'import json, sys; assert json.load(sys.stdin)["ok"] is False'
    expect_only in
}
found wrong-crc "$prefix\.codes: .*CRC-32"
found wrong-other 'tensor model\.norm\.weight: .*CRC-32'
found nan-scale "$prefix\.scales\.w4: .*finite"

# A width with a NaN is not run; the others are.
run 0 matquant eval in --bits 2 --text "$DATA/demo-eval.txt" --seq-len 32 --windows 1 -q
run 3 matquant eval in --bits 4 --text "$DATA/demo-eval.txt" --seq-len 32 --windows 1 -q
expect_one_error "^matquant: in.*: $prefix\.scales\.w4: .*"
expect_only in

# Neither is a slice made of what is not the model that config.json says, or of numbers that are none. (At 6 bits, which
# have no norms of their own.)
unsliced() {
    broken "$1" "$master"
    run 3 matquant slice in -o out --bits 6
    expect_one_error "^matquant: $weights: tensor model\.$2\$"
    expect_only in
}
uninspected() { # the same of inspect, which reads no numbers
    unsliced "$@"
    run 3 matquant inspect in
    expect_one_error "^matquant: $weights: tensor model\.$2\$"
}
uninspected missing-norm 'layers\.2\.input_layernorm\.weight: missing'
uninspected config-shape 'layers\.0\.mlp\.gate_proj\.weight: its shape .* contradicts config\.json.*'
unsliced nan-norm 'norm\.weight: .*weight number 3 is not finite'

# Already quantized input, by us.
run 3 matquant quantize "$master" -o out $small
expect_one_error '^matquant: .*config.json: .*already quantized.*matquant.*'
expect_only in
