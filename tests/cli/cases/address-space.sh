# needs: master
# A limit on address space: status 4 and one line before anything is learned, also of a dry run, and no hang.
. "$CLI/shared.sh"
model=$short_model
[ "$SANITIZED" = 0 ] || skip "the sanitizers want more address space than any limit"
export OMP_NUM_THREADS=1
# limited KIBIBYTES COMMAND...
limited() {
    kibibytes=$1
    shift
    timeout 120 sh -c 'ulimit -v "$1"; shift; exec "$@"' sh "$kibibytes" "$@"
}
# What OpenBLAS maps when it multiplies, beside some 85 MiB of libraries (45 without oneDNN), and for threads of its own.
for options in "" --dry-run; do
    run 4 limited 150000 matquant quantize "$model" -o out $small -q $options
    expect_one_error '^matquant: matrix products need 128 MiB of address space, and its limit .* leaves [0-9]+ MiB; a higher limit'
done
run 4 limited 150000 matquant eval "$model" --text "$DATA/demo-eval.txt" --seq-len 64 --windows 1 -q
expect_one_error '^matquant: matrix products need 128 MiB of address space, '
run 4 limited 400000 matquant quantize "$model" -o out $small -q --threads 4
expect_one_error '^matquant: matrix products need (384|512) MiB of address space, '
expect_only

# With room for that, and for the job; slice multiplies nothing. OMP_NUM_THREADS is the default number of threads.
run 0 limited 600000 matquant quantize "$model" -o out $small -q
run 0 limited 600000 matquant eval out --text "$DATA/demo-eval.txt" --seq-len 64 --windows 1 -q
run 0 limited 200000 matquant slice "$FIXTURES/master/m" -o int4 --bits 4 -q
rm -r out int4

# The job's own needs; the machine has as much.
for options in "" --dry-run "--gemm auto --dry-run"; do
    run 4 limited 600000 matquant quantize "$model" -o out $small --samples 4000 --seq-len 512 -q $options
    expect_one_error '^matquant: [0-9]{3,} MiB of memory are needed and [0-9]{1,3} MiB are free; fewer --samples, '
done
run 4 sh -c 'ulimit -d 300000; exec "$@"' sh matquant quantize "$model" -o out $small --samples 4000 --seq-len 512 -q
expect_one_error '^matquant: [0-9]{3,} MiB of memory are needed and [0-9]{1,3} MiB are free; fewer --samples, '
expect_only
