# A master for one width alone: that width is learned and refitted, inspect says which it is, and the others, whose numbers
# are least squares, can be measured and cut all the same.
. "$CLI/shared.sh"
model=$short_model
for bits in 2 3 8; do
    run 0 matquant quantize "$model" -o "d$bits" $small --bits $bits --json -q
    [ "$(stdout | python3 -c 'import json, sys
out = json.load(sys.stdin)
print([w["bits"] for w in out["widths"]], [r["bits"] for r in out["refit"]])')" = "[$bits] [$bits]" ] ||
        fail "not int$bits alone"
    verified "d$bits"
    run 0 matquant inspect "d$bits" --json
    [ "$(stdout | python3 -c 'import json, sys
print([w["bits"] for w in json.load(sys.stdin)["widths"] if w["trained"]])')" = "[$bits]" ] ||
        fail "inspect does not say what was trained"
    run 0 matquant inspect "d$bits"
    expect_out '^bits .* KL held out$'
    expect_out "^$bits +yes .* [0-9]+\.[0-9]{4}$"
    expect_out '^7 +- .* -$'
    for width in $bits 4; do
        run 0 matquant slice "d$bits" -o slice --bits $width --force -q
        run 0 matquant eval slice --text "$DATA/demo-eval.txt" --seq-len 32 --windows 1 --json -q
        sliced=$(stdout | python3 -c 'import json, sys; print(json.load(sys.stdin)["perplexity"])')
        run 0 matquant eval "d$bits" --bits $width --text "$DATA/demo-eval.txt" --seq-len 32 --windows 1 --json -q
        [ "$(stdout | python3 -c 'import json, sys; print(json.load(sys.stdin)["perplexity"])')" = "$sliced" ] ||
            fail "int$width of a master for int$bits is not its slice"
    done
done
