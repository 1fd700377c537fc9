# GGUF's K-quants, for groups that are a whole row: the slice's own numbers in fewer bytes.
. "$CLI/shared.sh"
run 0 python3 "$tools/make_random_model.py" wide "$model" wide
run 0 matquant quantize wide -o m --recipe rtn --group-size 0 -q
run 0 matquant quantize wide -o s --recipe rtn --group-size 0 --zero-point symmetric -q
run 0 matquant quantize wide -o s64 --recipe rtn --group-size 64 --zero-point symmetric -q

# exact MASTER BITS TYPE: and all of the block's matrices are of llama.cpp's type of that number
exact() {
    run 0 matquant slice $1 -o $1-$2.gguf --bits $2 --format gguf
    expect_out "^weights +exactly the slice's$"
    run 0 python3 "$tools/read_gguf.py" $1 $1-$2.gguf $2
    expect_out "^types $3$"
    expect_out '^[1-9][0-9]* numbers are the same$'
    if stdout | grep -q fitted; then
        fail "$1-$2.gguf: some numbers are fitted"
    fi
}
exact m 2 10 # Q2_K
exact m 4 12 # Q4_K
exact m 5 13 # Q5_K
exact s 2 10
exact s 3 11 # Q3_K
exact s 4 2  # Q4_0: as few bytes
exact s 5 6  # Q5_0
exact s 6 14 # Q6_K
exact s 8 8  # Q8_0

# What needs an offset, or has smaller groups, is not there.
run 2 matquant slice m -o no.gguf --bits 3 --format gguf
expect_one_error '^matquant: GGUF has no 3 bits with an offset; use --bits 2, 4, 5 or 8, .*$'
run 2 matquant slice s64 -o no.gguf --bits 6 --format gguf
expect_one_error '^matquant: GGUF has no 6 bits for groups that are no multiple of 256; use --bits 2, 4, 5 or 8, .*$'
run 2 matquant slice s -o no.gguf --bits 7 --format gguf
expect_one_error '^matquant: GGUF has no 7 bits; use --bits 2, 4, 5 or 8, --dtype f16 for plain weights, or --format matquant$'

# Embeddings and head, too.
run 0 matquant quantize wide -o e --recipe rtn --group-size 0 --embeddings nested -q
exact e 4 12
