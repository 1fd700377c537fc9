# Slice rule round-extra: 2^r + 1 levels, kept in r + 1 bits; what holds them reads as the master does.
. "$CLI/shared.sh"
number() { stdout | python3 -c 'import json, sys; d = json.load(sys.stdin); print(*(d[k] for k in sys.argv[1:]))' "$@"; }
run 0 matquant quantize "$model" -o m $small --recipe paper --slice-rule round-extra -q
run 0 matquant verify m --against "$model"
run 0 matquant inspect m
expect_out '^slice rule +round-extra$'
expect_out '^2 +yes +4\.000 '
expect_out '^8 +yes +9\.000 '
expect_out "^Slices, in MLX's format where that holds the width, else in matquant's\$"
run 0 matquant eval m --bits 2 --text "$DATA/demo-eval.txt" --seq-len 64 --windows 2 --json
number perplexity nll >master
# As a 3-bit model of MLX, by our reader and an independent one; in the master's own format; as plain weights.
run 0 matquant slice m -o s2 --bits 2
run 0 python3 "$tools/read_mlx.py" m s2 2
run 0 matquant eval s2 --text "$DATA/demo-eval.txt" --seq-len 64 --windows 2 --bits 2 --json
number perplexity nll >slice
expect_same master slice
[ "$(number bits mean_bits)" = "2 2" ] || fail "other bits than the master's"
run 2 matquant eval s2 --text "$DATA/demo-eval.txt" --bits 3
expect_one_error '^matquant: s2: is a slice of 2 bits, not of 3$'
run 0 matquant inspect s2
expect_out '^2 +yes +4\.000 '
run 0 matquant slice m -o own --bits 2 --format matquant
run 0 matquant slice m -o plain --bits 2 --format safetensors --dtype f32
for folder in own plain; do
    run 0 matquant eval $folder --text "$DATA/demo-eval.txt" --seq-len 64 --windows 2 --json
    number perplexity nll >slice
    expect_same master slice
done
# All five levels are there.
python3 - "$tools" <<'PY' || fail "not five levels"
import sys
sys.path.insert(0, sys.argv[1])
from checkpoint import Master
for folder in "m", "own":
    master = Master(folder, 2)
    levels = set().union(*(set(master.linear(prefix)[3]) for prefix in master.prefixes))
    assert levels == {0, 1, 2, 3, 4}, levels
PY
run 2 matquant slice m -o no.gguf --bits 2 --format gguf
expect_one_error '^matquant: --format gguf has no room for the extra level.*mlx \(in 3 bits\).*'
run 0 matquant slice m -o s8 --bits 8
run 2 matquant quantize "$model" -o no $small --slice-rule round-extra
expect_one_error '^matquant: recipe best .*'
expect_only m master s2 slice own plain s8
