# A master for one width alone: that width is learned and refitted, inspect says which it is, and the others, whose numbers
# are least squares, can be measured and cut all the same.
. "$CLI/shared.sh"
model=$short_model
# Of a slice inspect says what it says of the master's width: its refit, if that had one.
inspect_slice() {
    run 0 matquant inspect slice --json
    stdout >slice.json
    python3 - $width $bits <<'PY' || fail "not the refit of the master's int$width"
import json, sys
width, refitted = map(int, sys.argv[1:])
of_master = {w["bits"]: w["refit_kl"] for w in json.load(open("master.json"))["widths"]}
of_slice, = (w["refit_kl"] for w in json.load(open("slice.json"))["widths"])
assert of_slice == of_master[width], (of_slice, of_master)
assert (of_slice is not None) == (width == refitted), (of_slice, width)
PY
    run 0 matquant inspect slice
    if [ "$width" = "$bits" ]; then
        expect_out '^bits .* KL held out$'
        expect_out "^$width +yes .* [0-9]+\.[0-9]{4}$"
    else
        expect_out '^bits .* size$'
    fi
}
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
    stdout >master.json
    run 0 matquant inspect "d$bits"
    expect_out '^bits .* KL held out$'
    expect_out "^$bits +yes .* [0-9]+\.[0-9]{4}$"
    expect_out '^7 +- .* -$'
    for width in $bits 4; do
        for format in matquant mlx; do
            run 0 matquant slice "d$bits" -o slice --bits $width --format $format --force -q
            inspect_slice
        done
        run 0 matquant eval slice --text "$DATA/demo-eval.txt" --seq-len 32 --windows 1 --json -q
        sliced=$(stdout | python3 -c 'import json, sys; print(json.load(sys.stdin)["perplexity"])')
        run 0 matquant eval "d$bits" --bits $width --text "$DATA/demo-eval.txt" --seq-len 32 --windows 1 --json -q
        [ "$(stdout | python3 -c 'import json, sys; print(json.load(sys.stdin)["perplexity"])')" = "$sliced" ] ||
            fail "int$width of a master for int$bits is not its slice"
    done
done
