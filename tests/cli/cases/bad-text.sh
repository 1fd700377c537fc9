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
refused_text empty.txt '.*(empty|no text).*'
: | gzip >texts/empty.txt.gz
refused_text empty.txt.gz '.*(empty|no text).*'
echo "Far too short." >texts/short.txt
refused_text short.txt '.*tokens.*128.*'
printf 'good so far \377 and on\n' >texts/bytes.txt
refused_text bytes.txt 'at byte 12: .*UTF-8.*'
head -c 2000 "$DATA/demo-eval.txt" | gzip | head -c 300 >texts/cut.txt.gz
refused_text cut.txt.gz '.*gzip.*'
{ head -c 2000 "$DATA/demo-eval.txt" | gzip | head -c 100; head -c 100 /dev/zero; } >texts/garbled.txt.gz
refused_text garbled.txt.gz '.*gzip.*'
cp "$DATA/demo-eval.txt" texts/plain.txt.gz
refused_text plain.txt.gz '.*gzip.*'
printf '{"text": "one"}\n{"text": 2}\n' >texts/number.jsonl
refused_text number.jsonl '.*'
expect_err 'line 2|at byte 1[67]'
printf '{"text": "one"}\n{"text": "tw\n' >texts/broken.jsonl
refused_text broken.jsonl '.*'
printf 'not an array' >texts/ids.npy
refused_text ids.npy '.*'
mkdir texts/folder.txt
refused_text folder.txt '.*'
