# needs: master
# cost: 10
# --layer-bits: layers of other widths, in slices and in eval, from the same codes.
. "$CLI/shared.sh"
master=$FIXTURES/master/m
text="--text $DATA/demo-eval.txt --seq-len 64 --windows 6"
number() { python3 -c 'import json, sys; d = json.load(sys.stdin); print(*(d[k] for k in sys.argv[1:]))' "$@"; }

# The last that matches a layer counts. A slice is its master at the same widths, to the last bit, also one in plain numbers.
first=self_attn=8 second='[01]\.self_attn\.q_=4'
run 0 matquant eval "$master" --bits 2 --layer-bits $first --layer-bits "$second" $text --reference "$model" --json
stdout | number perplexity nll kl top1_agreement mean_bits widths >of-master
run 0 matquant slice "$master" -o mlx --bits 2 --layer-bits $first --layer-bits "$second"
expect_out '^format +mlx, 2 bits$'
expect_out '^widths +22 layers of 8 bits, 2 of 4, 18 of 2; [0-9.]* bits on average$'
expect_out "^format's error +none: the weights are exactly the slice's$"
expect_no_err
run 0 matquant eval mlx $text --reference "$model" --json
stdout | number perplexity nll kl top1_agreement mean_bits widths >of-slice
expect_same of-master of-slice
run 0 matquant slice "$master" -o plain --bits 2 --layer-bits $first --layer-bits "$second" --format safetensors --dtype f32 --json
stdout | number mean_bits widths >of-slice
run 0 matquant eval plain $text --reference "$model" --json
stdout | number perplexity nll kl top1_agreement >of-plain
cut -d ' ' -f 1-4 of-master | expect_same - of-plain
cut -d ' ' -f 5- of-master | expect_same - of-slice
run 0 matquant eval "$master" --bits 2 $text --reference "$model" --json
stdout | number perplexity nll kl top1_agreement >of-slice
! cmp -s of-plain of-slice || fail "the widths change nothing"

# The model's own width is said to be none of its layers' where that is so.
run 0 matquant slice "$master" -o all --bits 8 --layer-bits .=2
expect_out '^widths +42 layers of 2 bits; 2.000 bits on average$'
run 0 matquant eval "$master" --bits 8 --layer-bits .=2 $text
expect_out '^widths +42 layers of 2 bits; 2.000 bits on average$'
rm -r all

# Readers of their own find the same; those that are told otherwise do not.
run 0 python3 "$tools/read_mlx.py" "$master" mlx 2 $first "$second"
run 1 python3 "$tools/read_mlx.py" "$master" mlx 2 $first
expect_err '^read_mlx\.py: README\.md does not say what this is$'
run 1 python3 "$tools/read_mlx.py" "$master" mlx 2
expect_err '^read_mlx\.py: README\.md does not say what this is$'
run 0 python3 "$tools/read_plain.py" "$master" plain 2 F32 $first "$second"
run 0 matquant slice "$master" -o gptq --bits 2 --layer-bits $first --layer-bits "$second" --format gptq -q
run 0 python3 "$tools/read_integer.py" "$master" gptq 2 $first "$second"
run 1 python3 "$tools/read_integer.py" "$master" gptq 2 $first
expect_err '^read_integer\.py: README\.md does not say what this is$'

# Norms of a block have its layers' width, wherever they are read.
run 0 matquant eval "$master" --bits 2 --layer-bits '\.[0-2]\.=4' $text --json
stdout | number perplexity nll mean_bits >of-master
run 0 matquant slice "$master" -o mlx --bits 2 --layer-bits '\.[0-2]\.=4' --force -q
run 0 python3 "$tools/read_mlx.py" "$master" mlx 2 '\.[0-2]\.=4'
run 0 matquant eval mlx $text --json
stdout | number perplexity nll mean_bits >of-slice
expect_same of-master of-slice
run 0 matquant slice "$master" -o mlx --bits 2 --layer-bits $first --layer-bits "$second" --force -q
run 0 matquant verify mlx --against "$model"
expect_out '^problems +0$'

# Where the slice comes from says what it is; nothing that was measured at one width.
run 0 matquant inspect mlx
expect_out '^slice\.width +2$'
expect_out '^slice\.widths +\{"bits":8,"layers":22\}$'
expect_out '^slice\.widths +\{"bits":4,"layers":2\}$'
expect_out '^slice\.widths +\{"bits":2,"layers":18\}$'
expect_out '^slice\.layer_bits +\["self_attn=8","\[01\]..\.self_attn..\.q_=4"\]$'
expect_out '^bits .* size$'
cp -r "$master" recorded
run 0 matquant eval recorded --bits 2 $text --record -q
run 0 matquant slice recorded -o measured --bits 2 -q
grep -q '^- perplexity ' measured/README.md || fail "no measurement in the model card"
grep -q 'refitted end to end' measured/README.md || fail "no refit in the model card"
for mixed in up_proj=4 .=4; do # no layer is left at 2 bits by the second
    run 0 matquant slice recorded -o measured --bits 2 --layer-bits $mixed --force -q
    ! grep -q '^- perplexity ' measured/README.md || fail "a measurement of another model in the model card"
    ! grep -q 'refitted end to end' measured/README.md || fail "the refit of another model in the model card"
    ! grep -q '"refit"' measured/matquant.json || fail "the refit of another model in the provenance"
done
run 0 matquant slice recorded -o measured --bits 2 --layer-bits up_proj=4 --force -q
grep -q '^A slice of mixed widths (6 layers of 4 bits, 36 of 2), with norms of 2 bits where a block has several, in the format `mlx`' measured/README.md ||
    fail "the model card does not say what this is"
for bits in 4 2; do # layers of 2 bits have 4 in the types that hold their rows
    run 0 matquant slice recorded -o refit.gguf --bits $bits --force -q
    grep -aq 'refitted end to end' refit.gguf && had=4 || had=2
    [ $had = $bits ] || fail "the refit in a GGUF file of $bits bits"
done
rm refit.gguf
run 2 matquant eval recorded --bits 2 --layer-bits up_proj=4 $text --record
expect_one_error '^matquant: what is recorded is of one width for all layers, not of mixed ones$'

# Several widths at once.
run 0 matquant eval "$master" --bits 4,2 --layer-bits up_proj=8 --text "$DATA/demo-eval.txt" --seq-len 32 --windows 1
expect_out '^bits +mean bits +perplexity +stderr$'
expect_out "^4 +5\.000 "
expect_out "^2 +3\.500 "

# What cannot be is refused in a line.
run 2 matquant slice "$master" -o no --bits 2 --layer-bits up_poj=4
expect_one_error "^matquant: --layer-bits 'up_poj' matches no quantized layer, such as model\.layers\.0\..*"
run 2 matquant eval "$master" --bits 2 --layer-bits 'up(=4' $text
expect_one_error "^matquant: .*: --layer-bits 'up\(' is not a regular expression: .*"
for bad in up_proj up_proj= up_proj=1 up_proj=9 up_proj=4x =4 ''; do
    run 2 matquant slice "$master" -o no --bits 2 --layer-bits "$bad"
    expect_one_error "^matquant slice: option '--layer-bits' takes a PATTERN=R with R from 2 to 8, not '$bad' .*"
done
for format in compressed-tensors matquant; do
    run 2 matquant slice "$master" -o no --bits 2 --layer-bits up_proj=4 --format $format
    expect_one_error "^matquant: --format $format has one width for all layers; with --layer-bits use one of mlx, gguf, gptq, safetensors\$"
done
run 2 matquant slice "$master" -o no.gguf --bits 4 --layer-bits down_proj=7
expect_one_error '^matquant: .*: tensor model\.layers\.0\.mlp\.down_proj\.codes: takes 7 bits, which GGUF has not: it has 2, .*; use --dtype f16 .*$'
run 0 matquant slice "$master" -o seven.gguf --bits 4 --layer-bits down_proj=7 --dtype f16 -q
run 0 python3 "$tools/read_gguf.py" "$master" seven.gguf 4 down_proj=7
run 2 matquant eval mlx --layer-bits up_proj=4 $text
expect_one_error '^matquant: mlx: is no master checkpoint: its layers have the widths that they have$'
expect_only mlx plain gptq recorded measured seven.gguf of-master of-slice of-plain
