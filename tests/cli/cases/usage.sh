# Wrong usage: one line that says what is wrong and where help is, status 2, nothing made.

# wrong VERB REST REGEX
wrong() {
    run 2 matquant $1 $2
    expect_one_error "^matquant $1: $3 \(see matquant $1 --help\)\$"
    expect_only
}
for verb in quantize slice eval inspect verify; do
    wrong $verb "M --nonsense" "unknown option '--nonsense'"
    wrong $verb "M --jso" "unknown option '--jso', did you mean '--json'\?"
    wrong $verb "M -Z" "unknown option '-Z'"
    wrong $verb "M --json=yes" "option '--json' takes no value"
done
wrong quantize "" "MODEL is missing"
wrong quantize M "option '--output' is missing"
wrong quantize "M N -o out" "unexpected argument 'N'"
wrong quantize "M -o out --recipe bst" "option '--recipe' takes best, paper or rtn, not 'bst'"
wrong quantize "M -o out --bits 8,1" "option '--bits' takes different whole numbers or pairs of them such as 8:2, separated by commas, each number from 2 to 8, not '8,1'"
wrong quantize "M -o out --bits 8,4 --lambda 1,2,3" "--lambda has 3 numbers, but --bits 2 widths"
wrong quantize "M -o out --preset best" "option '--preset' takes balanced, narrow or wide, not 'best'"
wrong quantize "M -o out --preset wide --lambda 1,2,3" "--preset stands for a --lambda: give one of them"
wrong quantize "M -o out --lambda 1,2" "--lambda has 2 numbers, but --bits 3 widths"
wrong quantize "M -o out --lambda 1,2,-3" "option '--lambda' takes numbers, .*, not '1,2,-3'"
wrong quantize "M -o out --group-size -1" "option '--group-size' takes a whole number from 0 to 1000000000, not '-1'"
wrong quantize "M -o out --epochs 0" "option '--epochs' takes a whole number of at least 1, not '0'"
wrong quantize "M -o out --periods 8,0,1" "option '--periods' takes whole numbers, separated by commas, from 1 to 1000000, not '8,0,1'"
wrong quantize "M -o out --seq-len 1" "option '--seq-len' takes a whole number of at least 2, not '1'"
wrong quantize "M -o out --max-shard-size 1T" "option '--max-shard-size' takes bytes .*, not '1T'"
wrong quantize "M -o out --loss l1" "option '--loss' takes relative or l2, not 'l1'"
wrong quantize "M -o out --threads 0" "option '--threads' takes a whole number from 1 to 1024, not '0'"
wrong quantize "M -o out --calib" "option '--calib' needs a value: FILE"
wrong slice "" "MASTER is missing"
wrong slice "M -o out" "option '--bits' is missing"
wrong slice "M --bits 4" "option '--output' is missing"
wrong slice "M -o out --bits 9" "option '--bits' takes a whole number from 2 to 8, not '9'"
wrong slice "M -o out --bits 4 --format onnx" "option '--format' takes .*, not 'onnx'"
wrong eval "" "FOLDER is missing"
wrong eval M "--text FILE or --tasks FILE... is needed"
wrong eval "M --text T --bits 1" "option '--bits' takes different whole numbers, separated by commas, from 2 to 8, not '1'"
wrong eval "M --text T --bits 4,4" "option '--bits' takes different whole numbers, separated by commas, from 2 to 8, not '4,4'"
wrong eval "M --tasks T --bits 8,4 --items I" "--items is of one width: give --bits one"
wrong eval "M --text T --max-kl 1" "--max-kl needs --reference MODEL"
wrong eval "M --tasks T --max-ppl 2" "--max-ppl needs --text FILE"
wrong eval "M --tasks T --reference R" "--reference needs --text FILE"
wrong eval "M --text T --min-acc 0.5" "--min-acc needs --tasks FILE..."
wrong eval "M --text T --max-items 5" "--max-items needs --tasks FILE..."
wrong eval "M --text T --items I" "--items needs --tasks FILE..."
wrong eval "M --tasks T --min-acc 60" "option '--min-acc' takes a number from 0 to 1, not '60'"
wrong eval "--tasks T U M" "FOLDER is missing: it belongs before '--tasks', which takes all words up to the next option"
wrong eval "M --tasks" "option '--tasks' needs a value: FILE..."
wrong eval "M --text T --max-ppl x" "option '--max-ppl' takes a number, not 'x'"
wrong eval "M --text T --max-ppl -1" "option '--max-ppl' takes a number of at least 0, not '-1'"
wrong inspect "" "FOLDER is missing"
wrong inspect "A B" "unexpected argument 'B'"
wrong verify "" "FOLDER is missing"
wrong verify "M --threads 2" "unknown option '--threads'"
wrong verify "M --against" "option '--against' needs a value: MODEL"

run 2 matquant
expect_no_out
expect_err '^Usage: matquant COMMAND'
run 2 matquant quantise
expect_one_error "^matquant: unknown command 'quantise', did you mean 'quantize'\? \(see matquant --help\)\$"
run 2 matquant --wrong
expect_one_error "^matquant: unknown option '--wrong' \(see matquant --help\)\$"
run 2 matquant help nothing
expect_one_error "^matquant: unknown command 'nothing' \(see matquant --help\)\$"

# A line break in a name does not break the line.
run 2 matquant inspect a "b
c"
expect_one_error "^matquant inspect: unexpected argument 'b\?c'"
