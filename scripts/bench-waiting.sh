#!/bin/sh
# How long threads should look for one another before they sleep (GOMP_SPINCOUNT): a short run of the demo model alone, two
# of them at once, and one beside as many busy programs as there are processors. Prints a table, in seconds of the wall.
#
#   scripts/bench-waiting.sh [REPEATS]
#
# Each cell is the median of the repeats (default: 5), in turns; 60 means that it was ended after so many. "libgomp's own" is
# what matquant had without setting anything. Needs a built tree (build/release, or MATQUANT_BUILD).
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$here/scripts/bench-lib.sh"
[ $# -le 1 ] || usage
help_wanted "$@"
build=${MATQUANT_BUILD:-$here/build/release}
if [ ! -x "$build/matquant" ]; then
    echo "$0: $build is not built: cmake --preset release && cmake --build --preset release" >&2
    exit 2
fi
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE OMP_WAIT_POLICY GOMP_SPINCOUNT
exec python3 - "$build/matquant" "$here" "${1:-5}" <<'PYTHON'
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, f"{sys.argv[2]}/scripts")
from bench_machine import machine

program, root, repeats = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
LIMIT, CORES = 60, machine()["cores"]
# libgomp's own number, named, is what it takes where nothing is set.
SETTINGS = {"libgomp's own (300,000)": {"GOMP_SPINCOUNT": "300000"}, **{f"{n:,}": {"GOMP_SPINCOUNT": str(n)}
            for n in (4000, 2000, 1000, 500)}, "none (passive)": {"OMP_WAIT_POLICY": "passive"}}


def seconds(setting, work, runs, busy):
    words = [program, "quantize", root / "data/demo-model", "--calib", root / "data/demo-calib.jsonl.gz", "--group-size", "64",
             "--samples", "16", "--seq-len", "256", "--epochs", "1", "--refit-tokens", "8192", "--refit-epochs", "1",
             "--refit-bits", "2", "--no-extend", "--force", "--quiet", "-o"]
    others, ours, failed = [], [], False
    start = time.monotonic()
    try:
        for _ in range(busy):
            others.append(subprocess.Popen(["sh", "-c", "while :; do :; done"]))
        for index in range(runs):
            ours.append(subprocess.Popen([*words, f"{work}/{index}"], env={**os.environ, **setting},
                                         stdout=subprocess.DEVNULL))
        failed = any(process.wait(timeout=max(0.0, start + LIMIT - time.monotonic())) != 0 for process in ours)
    except subprocess.TimeoutExpired:
        pass
    finally:
        took = min(time.monotonic() - start, LIMIT)
        for process in ours + others:
            process.kill()
            process.wait()
    if failed:
        sys.exit("bench-waiting: a run failed")
    return took


KINDS = {"alone": (1, 0), "two at once": (2, 0), f"beside {CORES} busy programs": (1, CORES)}
times = {(setting, kind): [] for setting in SETTINGS for kind in KINDS}
with tempfile.TemporaryDirectory() as work:
    for _ in range(repeats):
        for setting, kind in times:
            times[setting, kind].append(seconds(SETTINGS[setting], work, *KINDS[kind]))
print(f"{machine()['cpu']}, {CORES} cores; {time.strftime('%Y-%m-%d')}; median (longest) of {repeats}\n")
print("| looks before a thread sleeps | " + " | ".join(KINDS) + " |\n|---" + "|---" * len(KINDS) + "|")
for setting in SETTINGS:
    cells = [sorted(times[setting, kind]) for kind in KINDS]
    print(f"| {setting} | " + " | ".join(f"{cell[len(cell) // 2]:.1f} ({cell[-1]:.1f})" for cell in cells) + " |")
PYTHON
