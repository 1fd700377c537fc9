# What is fitted is shared out between threads, and comes out the same whatever their number.
. "$CLI/shared.sh"
run 0 python3 "$tools/make_random_model.py" tall "$model" tall
run 0 matquant quantize tall -o m --recipe rtn --group-size 64 -q

# same FORMAT BITS OPTION...: on one thread, two and five
same() {
    format=$1 bits=$2
    shift 2
    end=
    [ $format != gguf ] || end=.gguf
    for threads in 1 2 5; do
        run 0 matquant slice m -o slice-$threads$end --bits $bits --format $format "$@" --threads $threads --force --json -q
        stdout | python3 -c 'import json, sys; print(json.load(sys.stdin)["relative_error"])' >$threads.error
    done
    for threads in 2 5; do
        diff -r slice-1$end slice-$threads$end || fail "$format, $bits bits: other bytes on $threads threads"
        expect_same 1.error $threads.error
    done
    rm -rf slice-*
}
same gptq 8
same gptq 3
same compressed-tensors 4
same gguf 8
same safetensors 4 --dtype bf16
same mlx 4
