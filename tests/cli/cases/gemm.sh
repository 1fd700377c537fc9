# --gemm: what is asked for is used and named in the provenance, or refused; auto says what it found.
. "$CLI/shared.sh"
model=$short_model
small="${small%--gemm openblas}--bits 8,2"
gemm() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["gemm"][sys.argv[2]])' "$1/matquant.json" "$2"; }

run 0 matquant quantize "$model" -o float $small --gemm openblas
expect_out '^products +openblas \(OpenBLAS [0-9.]+ [A-Za-z0-9]+\)$'
[ "$(gemm float backend)" = openblas ] || fail "the provenance names another backend"
# same_kernel FOLDER: the provenance names the kernel that the result names, which stands in parentheses.
same_kernel() {
    stdout | grep -qF "($(gemm "$1" kernel))" || fail "another kernel in the provenance: $(gemm "$1" kernel)"
}
same_kernel float

# With oneDNN held back from the instructions, or none of it built in, bfloat16 is refused and auto takes openblas.
export DNNL_MAX_CPU_ISA=AVX512_CORE
matquant quantize "$model" -o out $small --gemm onednn-bf16 >"$TMPDIR/stdout" 2>"$TMPDIR/stderr" && status=0 || status=$?
case $status in
2) expect_one_error '^matquant: --gemm onednn-bf16: this matquant was built without oneDNN$' ;;
4) expect_one_error '^matquant: this processor has no bfloat16 instructions' ;;
*) fail "status $status" ;;
esac
run 0 matquant quantize "$model" -o auto $small
[ "$(gemm auto backend)" = openblas ] || fail "auto took what the processor has not"
expect_same auto/model.safetensors float/model.safetensors
unset DNNL_MAX_CPU_ISA
expect_only auto float

run 2 matquant quantize "$model" -o out --recipe rtn --gemm openblas
expect_one_error 'it has no use for --gemm$'

if matquant quantize "$model" -o out $small --gemm onednn-bf16 --dry-run >/dev/null 2>&1; then
    for threads in 1 2; do
        run 0 matquant quantize "$model" -o rounded$threads $small --gemm onednn-bf16 --threads $threads
        expect_out '^products +onednn-bf16 \(oneDNN [0-9.]+ avx512_core_(bf16|amx)\)$'
        [ "$(gemm rounded$threads backend)" = onednn-bf16 ] || fail "the provenance names another backend"
        same_kernel rounded$threads
    done
    expect_same rounded1/model.safetensors rounded2/model.safetensors
    ! cmp -s rounded1/model.safetensors float/model.safetensors || fail "bfloat16 changed nothing"
    run 0 matquant quantize "$model" -o auto $small --force
    expect_err '^matquant: products: openblas [0-9]+ GFLOP/s, onednn-bf16 [0-9]+ GFLOP/s; --gemm auto takes (openblas|onednn-bf16)$'
    chosen=$(gemm auto backend)
    expect_err "takes $chosen\$"
    [ "$chosen" = openblas ] && like=float || like=rounded1
    expect_same auto/model.safetensors $like/model.safetensors
fi
