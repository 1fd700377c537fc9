# Where the user says nothing of how threads wait, the program starts itself anew with a number of its own: as the same process
# under the same name, on the same standard streams, and as easily asked to stop. What the user says stays.
. "$CLI/shared.sh"
[ -e /proc/self/environ ] || skip "no /proc/self/environ"
unset OMP_WAIT_POLICY GOMP_SPINCOUNT

run 4 sh -c 'matquant inspect "$1" >&-' sh "$model"
expect_err '^matquant: standard output: cannot write: Bad file descriptor$'
run 2 matquant inspect "$model" "" "a b"
expect_one_error "^matquant inspect: unexpected argument '' .*"

python3 - "$DATA" <<'END'
import os, signal, subprocess, sys, time

def learn(**variables):
    return subprocess.Popen(
        ["matquant", "quantize", f"{sys.argv[1]}/demo-model", "-o", "out", "--calib", f"{sys.argv[1]}/demo-calib.jsonl.gz",
         "--samples", "16", "--seq-len", "64", "--group-size", "32"],
        env={**os.environ, **variables}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

def read(process, name):
    with open(f"/proc/{process.pid}/{name}", "rb") as file:
        return file.read()

for variables, expected in (({}, b"GOMP_SPINCOUNT=1000"), ({"GOMP_SPINCOUNT": "7"}, b"GOMP_SPINCOUNT=7"),
                            ({"OMP_WAIT_POLICY": "passive"}, None)):
    process = learn(**variables)
    line = process.stderr.readline()  # of progress: it is long past its start
    spins = [word for word in read(process, "environ").split(b"\0") if word.startswith(b"GOMP_SPINCOUNT=")]
    assert line != "" and spins == ([expected] if expected else []), (variables, line, spins)
    assert read(process, "comm") == b"matquant\n", read(process, "comm")
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 5, process.returncode
END
expect_only
