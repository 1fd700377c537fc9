# A result that cannot be written is a failure of the machine.
. "$CLI/shared.sh"
[ -e /dev/full ] || skip "no /dev/full"
full() { "$@" >/dev/full; }
closed() { "$@" >&-; }
piped() { { "$@"; echo $? >status; } | true; }
for option in "" --json; do
    run 4 full matquant inspect "$model" $option
    expect_err '^matquant: standard output: cannot write: No space left on device$'
    run 4 closed matquant inspect "$model" $option
    expect_err '^matquant: standard output: cannot write: Bad file descriptor$'
done
run 4 full matquant --help
run 4 full matquant quantize --help

# A reader that has gone away.
python3 - <<'END'
import os, subprocess
r, w = os.pipe()
os.close(r)
done = subprocess.run(["matquant", "help", "quantize"], stdout=w, stderr=subprocess.PIPE, text=True)
assert done.returncode == 4, done.returncode
assert done.stderr == "matquant: standard output: cannot write: Broken pipe\n", done.stderr
END
