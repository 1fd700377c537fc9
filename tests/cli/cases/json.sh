# needs: master
# --json of every verb: one object, nothing else on stdout, with the members that scripts rely on.
. "$CLI/shared.sh"
has() { stdout | python3 -c 'import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1:]:
    at = value
    for part in key.split("."):
        at = at[int(part)] if part.isdigit() else at[part]' "$@" || fail "not JSON, or without one of: $*"; }
run 0 matquant quantize "$model" -o out $small --json -q
expect_no_err
has model output dry_run recipe loss slice_rule group_size widths.2.mean_loss_after widths.0.lambda quantized_tensors \
    quantized_weights other_tensors calibration_tokens written_tokens output_bytes memory_predicted memory_peak seconds \
    blocks.5.losses.2.before blocks.5.losses.2.after blocks.0.seconds
run 0 matquant quantize "$model" -o other $small --json --dry-run
has output_bytes disk_free memory_predicted
expect_only out
run 0 matquant slice out -o s4 --bits 4 --json -q
has master output bits format tensors bytes_read bytes_written bits_per_weight seconds
run 0 matquant eval s4 --text "$DATA/demo-eval.txt" --seq-len 32 --windows 1 --reference "$model" --json -q
has model text windows seq_len tokens perplexity nll nll_stderr reference reference_perplexity kl kl_stderr \
    top1_agreement seconds
for folder in "$model" out s4; do
    run 0 matquant inspect $folder --json
    has kind architecture num_hidden_layers hidden_size vocab_size tensors weights bytes
done
run 0 matquant verify out --against "$model" --json -q
has folder against tensors bytes compared problems ok

# A name that is no UTF-8 does not break it.
odd=$(printf 'm\351m')
cp -r out "$odd"
run 0 matquant inspect "$odd" --json
has folder
