# cost: 9
# Every width from 8 to 2 bits is further from full precision than the next wider one, those that no loss saw (7, 6, 5, 3)
# between their neighbours: blocks, and the refit of 8, 4 and 2 bits; of the widths and with the text of the defaults,
# where 3 bits are refitted, too; and the same with a symmetric zero point, whose slices are rounded.
. "$CLI/shared.sh"
# Nothing is run here that other cases do not run under the sanitizers, in which this one takes minutes; the order of the
# numbers is the release build's to judge.
[ "$SANITIZED" = 0 ] || skip "the sanitizers have nothing to see here"

# in_order OPTION...: of a master that is made with these.
in_order() {
    rm -rf out
    run 0 matquant quantize "$model" -o out --calib "$DATA/demo-calib.jsonl.gz" --samples 8 --seq-len 64 --group-size 64 \
        --gemm openblas -q "$@"
    refitted=$(stdout | sed -n '/^Refit/,$ s/^\([2-8]\) .*/\1/p' | tr -d '\n')
    run 0 matquant eval out --bits 8,7,6,5,4,3,2 --reference "$model" --text "$DATA/demo-eval.txt" --seq-len 64 --windows 8 \
        --json -q
    stdout >results
    python3 - <<'PY' || fail "KL of 8 to 2 bits with '$*'"
import json
results = json.load(open("results"))["results"]
kls = [result["kl"] for result in results]
assert [result["bits"] for result in results] == [8, 7, 6, 5, 4, 3, 2]
assert 0 < kls[0] and all(wider < narrower for wider, narrower in zip(kls, kls[1:])), kls
PY
}

in_order --refit-tokens 2048 --refit-bits 8,4,2
[ "$refitted" = 842 ] || fail "refitted: $refitted"
in_order
[ "$refitted" = 8432 ] || fail "refitted: $refitted"
in_order --zero-point symmetric
[ "$refitted" = 8432 ] || fail "refitted: $refitted"
