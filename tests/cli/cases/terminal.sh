# On a terminal progress is one line, rewritten, never wider than the terminal, and gone at the end.
. "$CLI/shared.sh"
run 0 python3 "$tools/on_terminal.py" 40 matquant quantize "$short_model" -o out $small
expect_out '^\\rlearn [0-9.]+ %'
[ "$(stdout | grep -c '^\\r.*\\e\[K$')" -eq "$(stdout | wc -l)" ] || fail "something else than rewritten lines"
stdout | sed 's/^\\r//; s/\\e\[K$//' | awk 'length > 39 { exit 1 }' || fail "a line that is too long"
[ "$(stdout | tail -n 1)" = '\r\e[K' ] || fail "the line is still there at the end"
if stdout | sed '/block 3\/3/d; /int2  KL/d; /^\\rfull precision/d' | grep -q '100\.0 %'; then fail "100 % before the end"; fi
# The pass of full precision over so much text takes long enough to be shown; nothing of it follows its end.
run 0 python3 "$tools/on_terminal.py" 80 matquant quantize "$model" -o long $small --threads 1 --refit-bits 2 \
    --refit-tokens 12000 --refit-epochs 1
expect_out '^\\rfull precision [0-9.]+ %, then refit'
stdout | awk '/full precision/ { if (ended) exit 1; if (/ 100\.0 %/) ended = 1 }' || fail "100 % before the end of the pass"
python3 "$tools/make_tasks.py" "$DATA/demo-eval.txt" 9 >tasks.jsonl
run 0 python3 "$tools/on_terminal.py" 80 matquant eval "$model" --text "$DATA/demo-eval.txt" --tasks tasks.jsonl --threads 1
expect_out '^\\revaluate [0-9.]+ %, then tasks: window'
stdout | grep '^\\rtasks' | grep -q 'then' && fail "something follows the tasks"

# --quiet says nothing; a terminal that cannot rewrite gets lines.
run 0 python3 "$tools/on_terminal.py" 80 matquant quantize "$short_model" -o quiet $small -q
expect_no_out
run 0 matquant quantize "$short_model" -o lines $small
[ "$(grep -c '^learn [0-9.]* %' "$TMPDIR/stderr")" -eq 3 ] || fail "not one line a block"
