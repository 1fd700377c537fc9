# MATQUANT_KERNELS caps the instruction set of the program's own loops: each gives its own bytes, and the provenance names it.
. "$CLI/shared.sh"
model=$short_model
unset MATQUANT_KERNELS
kernels() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["kernels"])' "$1/matquant.json"; }

run 0 matquant quantize "$model" -o own $small
best=$(kernels own)
for name in base avx2 avx512; do
    case $best-$name in
    base-avx* | avx2-avx512)
        run 2 env MATQUANT_KERNELS=$name matquant quantize "$model" -o "$name" $small
        expect_one_error "^matquant: MATQUANT_KERNELS=$name: this processor has no more than $best\$"
        ;;
    *)
        run 0 env MATQUANT_KERNELS=$name matquant quantize "$model" -o "$name" $small
        [ "$(kernels "$name")" = "$name" ] || fail "$name gave $(kernels "$name")"
        # Without optimization all loops are scalar, and their sums the same.
        [ "$name" = "$best" ] || [ "$SANITIZED" = 1 ] || ! cmp -s $name/model.safetensors own/model.safetensors ||
            fail "$name gave the bytes of $best"
        ;;
    esac
done
expect_same "$best/model.safetensors" own/model.safetensors

for name in avx AVX2 "avx2 "; do
    run 2 env MATQUANT_KERNELS="$name" matquant eval own --text "$DATA/demo-eval.txt"
    expect_one_error "^matquant: MATQUANT_KERNELS=$name is none of base, avx2 and avx512\$"
done
