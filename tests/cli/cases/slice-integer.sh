# needs: master
# cost: 13
# Formats with whole zero points: the error that is reported is the one that a reader of its own finds, it is small for
# the width, and a master whose zero points are whole loses nothing.
. "$CLI/shared.sh"
master=$FIXTURES/master/m

# holds FORMAT BITS LIMIT
holds() {
    run 0 matquant slice "$master" -o $1-$2 --bits $2 --format $1 --json
    stdout >report.json
    run 0 python3 "$tools/read_integer.py" "$master" $1-$2 $2
    stdout | LIMIT=$3 python3 -c '
import json, os, re, sys
found = float(re.search(r"error (\S+)", sys.stdin.read()).group(1))
reported = json.load(open("report.json"))["relative_error"]
assert abs(reported / found - 1) < 1e-4, (reported, found)
assert 0 < found < float(os.environ["LIMIT"]), found' || fail "$1 in $2 bits: the error is another, or too large"
}
holds gptq 8 3e-5
holds gptq 4 1e-2
holds gptq 3 4e-2
holds compressed-tensors 8 3e-5
holds compressed-tensors 4 1e-2
holds compressed-tensors 5 3e-3
run 1 python3 "$tools/read_integer.py" "$master" gptq-4 3
expect_err '^read_integer\.py: other settings$'

# What costs much is said where it is done, and what to do about it.
run 0 matquant slice "$master" -o warned --bits 3 --format gptq
expect_err '^matquant: warning: gptq adds [0-9.]* % of the weights. squares at 3 bits, .*; a master made with --zero-point symmetric loses nothing$'
run 0 matquant slice "$master" -o warned --bits 8 --format gptq --force
expect_no_err
rm -r warned

# What a master's folder says of other weights is not a slice's.
cp -r "$master" with-config
echo '{"bits": 5}' >with-config/quantize_config.json
run 0 matquant slice with-config -o own-config --bits 8 --format gptq -q
grep -q '"bits": *8' own-config/quantize_config.json || fail "another one's quantize_config.json"
run 0 matquant slice with-config -o no-config --bits 8 -q
[ ! -e no-config/quantize_config.json ] || fail "it came along"
rm -r with-config own-config no-config

# The same again with whole zero points, put there by hand: not one weight changes.
python3 "$tools/whole_zero_points.py" "$master" whole 4
for format in gptq compressed-tensors; do
    run 0 matquant slice whole -o whole-$format --bits 4 --format $format
    expect_out "^format's error +none: the weights are exactly the slice's$"
    run 0 python3 "$tools/read_integer.py" whole whole-$format 4
    expect_out 'relative squared error 0$'
done

run 2 matquant slice "$master" -o no --bits 6 --format gptq
expect_one_error '^matquant: GPTQ has no 6 bits; .*compressed-tensors'
expect_only gptq-8 gptq-4 gptq-3 compressed-tensors-8 compressed-tensors-4 compressed-tensors-5 whole whole-gptq \
    whole-compressed-tensors report.json
