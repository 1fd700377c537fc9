# cost: 13
# GGUF's K-quants, for rows of 256: of groups that are a whole row the slice's own numbers, else numbers that are near.
. "$CLI/shared.sh"
run 0 python3 "$tools/make_random_model.py" wide "$model" wide
run 0 matquant quantize wide -o m --recipe rtn --group-size 0 -q
run 0 matquant quantize wide -o s --recipe rtn --group-size 0 --zero-point symmetric -q
run 0 matquant quantize wide -o g --recipe rtn --group-size 32 -q
run 0 matquant quantize wide -o s64 --recipe rtn --group-size 64 --zero-point symmetric -q

# exact MASTER BITS TYPE: and all of the block's matrices are of llama.cpp's type of that number
exact() {
    run 0 matquant slice $1 -o $1-$2.gguf --bits $2 --format gguf
    expect_out "^format's error +none: the weights are exactly the slice's$"
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

# fitted MASTER BITS TYPE MOST: what needs an offset, or has smaller groups, is near, and as near as was said.
fitted() {
    run 0 matquant slice $1 -o $1-$2.gguf --bits $2 --format gguf --json
    stdout >report.json
    run 0 python3 "$tools/read_gguf.py" $1 $1-$2.gguf $2
    expect_out "^types $3$"
    stdout | MOST=$4 python3 -c '
import json, os, re, sys
found = float(re.search(r"error (\S+)", sys.stdin.read()).group(1))
reported = json.load(open("report.json"))["relative_error"]
assert 0 < found < float(os.environ["MOST"]) and abs(reported / found - 1) < 1e-4, (reported, found)' ||
        fail "$1-$2.gguf: another error"
}
fitted m 3 11 0.02
fitted m 6 14 0.0004
fitted g 3 11 0.02
fitted g 6 14 0.0004
fitted s64 3 11 0.0002 # only their scales are rounded
fitted s64 6 14 0.00001
run 2 matquant slice s -o no.gguf --bits 7 --format gguf
expect_one_error '^matquant: GGUF has no 7 bits; use --bits 2, 3, 4, 5, 6 or 8, --dtype f16 for plain weights, or --format matquant$'

# Embeddings and head, too.
run 0 matquant quantize wide -o e --recipe rtn --group-size 0 --embeddings nested -q
exact e 4 12
fitted e 3 11 0.02
