# needs: master
# A master at a width and the slice of that width are the same model: equal to the last bit.
. "$CLI/shared.sh"
number() { python3 -c 'import json, sys; d = json.load(sys.stdin); print(*(d[k] for k in sys.argv[1:]))' "$@"; }
for bits in 2 4; do
    run 0 matquant eval "$FIXTURES/master/m" --bits $bits --text "$DATA/demo-eval.txt" --seq-len 64 --windows 6 \
        --reference "$model" --json
    stdout | number perplexity nll nll_stderr kl top1_agreement >of-master
    run 0 matquant eval "$FIXTURES/master/s$bits" --text "$DATA/demo-eval.txt" --seq-len 64 --windows 6 \
        --reference "$model" --json
    stdout | number perplexity nll nll_stderr kl top1_agreement >of-slice
    expect_same of-master of-slice
done

# The width of a slice is its own; a width that is not there is a wrong option.
run 2 matquant eval "$FIXTURES/master/s4" --bits 2 --text "$DATA/demo-eval.txt" --seq-len 32 --windows 1
expect_one_error '^matquant: .*/master/s4: is a slice of 4 bits, not of 2$'

# What MLX's format has no width for is refused, in a line that says what to use.
run 2 matquant slice "$FIXTURES/master/m" -o out --bits 7 --format mlx
expect_one_error "^matquant: MLX's format has no 7 bits; use --bits 2, 3, 4, 5, 6 or 8, or --format .*\$"
run 0 matquant slice "$FIXTURES/master/m" -o out --bits 7 --format matquant
expect_only of-master of-slice out
