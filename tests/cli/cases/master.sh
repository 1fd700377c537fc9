# provides: master
# The demo model quantized with the smallest settings: $FIXTURES/master/m, slices s2 ... s8 beside it.
. "$CLI/shared.sh"
rm -rf "$FIXTURES/master"
mkdir -p "$FIXTURES/master"
run 0 matquant quantize "$model" -o "$FIXTURES/master/m" $small
expect_out '^quantized +42 tensors'
expect_err '^learn 100\.0 %.*: .*6/6'
for bits in 2 4; do
    run 0 matquant slice "$FIXTURES/master/m" -o "$FIXTURES/master/s$bits" --bits $bits
    expect_out "^format +mlx, $bits bits"
done
verified "$FIXTURES/master/m"
expect_out '^problems +0$'
