# A result that cannot be written is a failure of the machine.
. "$CLI/shared.sh"
[ -e /dev/full ] || skip "no /dev/full"
full() { "$@" >/dev/full; }
closed() { "$@" >&-; }
for option in "" --json; do
    run 4 full matquant inspect "$model" $option
    expect_err '^matquant: standard output: cannot write: No space left on device$'
    run 4 closed matquant inspect "$model" $option
    expect_err '^matquant: standard output: cannot write: Bad file descriptor$'
done
run 4 full matquant eval "$model" --text "$DATA/demo-eval.txt" --seq-len 32 --windows 1 --max-ppl 1 -q --json # nor is that a check
expect_err '^matquant: standard output: cannot write: No space left on device$'
run 4 full matquant --help
run 4 full matquant quantize --help

# A reader that has gone away: of what is computed, too; a master is there nevertheless.
python3 - "$short_model" "$DATA/demo-eval.txt" <<'END' || fail "status or message"
import os, subprocess, sys
model, text = sys.argv[1:]
quantize = ["quantize", model, "-o", "out", "--recipe", "rtn", "--group-size", "32", "-q"]
evaluate = ["eval", model, "--text", text, "--seq-len", "32", "--windows", "1", "-q"]
for command in ["help", "quantize"], quantize, quantize + ["--json", "--force"], evaluate, evaluate + ["--json"]:
    r, w = os.pipe()
    os.close(r)
    done = subprocess.run(["matquant", *command], stdout=w, stderr=subprocess.PIPE, text=True)
    os.close(w)
    assert done.returncode == 4, (command, done)
    assert done.stderr == "matquant: standard output: cannot write: Broken pipe\n", (command, done)
END
expect_only out
run 0 matquant verify out --against "$short_model"
