# Calibration text that cannot be used. The model is good: everything is known before the first block.
. "$CLI/shared.sh"
mkdir texts

# refused_text FILE REGEX
refused_text() {
    run 3 matquant quantize "$model" -o out --calib "texts/$1" --samples 4 --seq-len 32 --epochs 1 --group-size 32
    expect_one_error "^matquant: texts/$1: $2\$"
    expect_only texts
    run 3 matquant eval "$model" --text "texts/$1" --seq-len 999 --windows 4 -q
    expect_one_error "^matquant: texts/$1: "
    expect_only texts
}

refused_text none.txt 'cannot open: No such file or directory'
: >texts/empty.txt
refused_text empty.txt 'there is no text in it'
: | gzip >texts/empty.txt.gz
refused_text empty.txt.gz 'there is no text in it'
echo "Far too short." >texts/short.txt
refused_text short.txt 'too short: [0-9]+ tokens give 0 sequences of 32, and 4 \(128 tokens\) are needed; .*'
printf 'good so far \377 and on\n' >texts/bytes.txt
refused_text bytes.txt 'at byte 12: the text is not UTF-8'
head -c 2000 "$DATA/demo-eval.txt" | gzip | head -c 300 >texts/cut.txt.gz
refused_text cut.txt.gz '.*gzip.*'
{ head -c 2000 "$DATA/demo-eval.txt" | gzip | head -c 100; head -c 100 /dev/zero; } >texts/garbled.txt.gz
refused_text garbled.txt.gz '.*gzip.*'
cp "$DATA/demo-eval.txt" texts/plain.txt.gz
refused_text plain.txt.gz '.*gzip.*'
printf '{"text": "one"}\n{"text": 2}\n' >texts/number.jsonl
refused_text number.jsonl 'at byte 16: line 2 is without a string "text"'
printf '{"text": 2}\n' >texts/NUMBER.JSONL # a name's letters may be of either case
refused_text NUMBER.JSONL 'at byte 0: line 1 is without a string "text"'
printf '{"text": 2}\n' >texts/number.ndjson
refused_text number.ndjson 'at byte 0: line 1 is without a string "text"'
printf '{"messages": []}\n' >texts/chat.jsonl
refused_text chat.jsonl 'at byte 0: line 1 has "messages" and no "text": put each conversation into "text", rendered .*'
printf '{"text": "one"}\n' >texts/text.json # would be read with its brackets
refused_text text.json 'is JSON by its name: text is read from \.jsonl, .*'
printf '{"text": "one"}\n{"text": "tw\n' >texts/broken.jsonl
refused_text broken.jsonl 'at byte 26: line 2: JSON is malformed' # in it, a string that does not end
printf 'not an array' >texts/ids.npy
refused_text ids.npy 'at byte 0: not a NumPy array file'
mkdir texts/folder.txt
refused_text folder.txt 'cannot read: Is a directory'

# Standard input has a name, which is not that of many programs.
run 3 matquant quantize "$model" -o out --calib - --samples 4 --seq-len 32 --epochs 1 --group-size 32
expect_one_error '^matquant: -: there is no such file; standard input is /dev/stdin, which is read as plain text, not as \.jsonl$'
run 3 matquant eval "$model" --text - -q
expect_one_error '^matquant: -: there is no such file; .*$'
