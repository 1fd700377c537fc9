# Every width from 8 to 2 bits is further from full precision than the next wider one, those that no loss saw (7, 6, 5, 3)
# between their neighbours: blocks, and the refit of 8, 4 and 2 bits.
. "$CLI/shared.sh"
run 0 matquant quantize "$model" -o out --calib "$DATA/demo-calib.jsonl.gz" --samples 8 --seq-len 64 --group-size 64 \
    --refit-tokens 2048 --refit-bits 8,4,2 --gemm openblas -q
kls=''
for width in 8 7 6 5 4 3 2; do
    run 0 matquant eval out --bits $width --reference "$model" --text "$DATA/demo-eval.txt" --seq-len 64 --windows 8 --json -q
    kls="$kls $(stdout | python3 -c 'import json, sys; print(json.load(sys.stdin)["kl"])')"
done
# shellcheck disable=SC2086
python3 - $kls <<'PY' || fail "KL of 8 to 2 bits:$kls"
import sys
kls = [float(word) for word in sys.argv[1:]]
assert len(kls) == 7 and 0 < kls[0] and all(wider < narrower for wider, narrower in zip(kls, kls[1:])), kls
PY
