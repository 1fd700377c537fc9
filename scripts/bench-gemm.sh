#!/bin/sh
# What --gemm onednn-bf16 does to speed and quality: the rates of a block's products in both types, and the demo model
# quantized with three seeds and either backend, as scripts/demo.sh does it.
#
#   scripts/bench-gemm.sh [RESULTS]     writes its section of RESULTS (default: tests/bench/RESULTS.md)
#
# Needs a build of everything (cmake --build --preset release), oneDNN in it and a processor with its instructions.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
results=${1:-$here/tests/bench/RESULTS.md}
build=${BUILD:-$here/build/release}
matquant=$build/matquant
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_WAIT_POLICY=passive # threads that wait sleep: processor time is work

# number KEY FILE: the value of a member of a JSON object.
number() {
    python3 -c 'import json, sys; print(json.load(open(sys.argv[2]))[sys.argv[1]])' "$1" "$2"
}

for seed in 0 1 2; do
    for gemm in openblas onednn-bf16; do
        # user: processor time of all threads, which other programs disturb less than the clock
        /usr/bin/env bash -c 'TIMEFORMAT=%U; time "$@" >"$0.json" 2>/dev/null' "$work/run" \
            "$matquant" quantize "$here/data/demo-model" -o "$work/master" --force --no-refit \
            --calib "$here/data/demo-calib.jsonl.gz" --group-size 32 --samples 64 --seq-len 256 --seed $seed \
            --gemm $gemm --json 2>"$work/time"
        row="$gemm $seed $(number seconds "$work/run.json") $(tail -n 1 "$work/time")"
        for width in 8 4 2; do
            "$matquant" eval "$work/master" --bits $width --text "$here/data/demo-eval.txt" --seq-len 256 --json \
                >"$work/eval.json" 2>/dev/null
            row="$row $(number perplexity "$work/eval.json")"
        done
        echo "$row" | tee -a "$work/rows" >&2
    done
done
"$build/tests/bench/bench_block" 0 10 cpu >"$work/block"

python3 - "$work" "$results" "$("$matquant" --version | head -n 1)" <<'END'
import datetime, os, re, sys

work, results, version = sys.argv[1:]
rows = [line.split() for line in open(os.path.join(work, "rows"))]
lines = ["## Products of bfloat16", "",
         "Made by `scripts/bench-gemm.sh`: `--gemm openblas` and `--gemm onednn-bf16`.", ""]
cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
lines += [f"{version}; {cpu}, {len(os.sched_getaffinity(0))} cores; {datetime.date.today()}.", "",
          "One block, 4 x 512 tokens (`bench_block 0 10 cpu`): milliseconds of processor time and GFLOP/s of a thread. "
          "`products'` is the",
          "rate of the bare library on the linear layers' products, `block's` the same products' rate within the whole "
          "block.", ""]
lines += ["    " + line.rstrip() for line in open(os.path.join(work, "block"))]
lines += ["", "The demo model, groups of 32, 64 x 256 tokens, 4 epochs: perplexity on `data/demo-eval.txt`, as in "
          "`scripts/demo.sh`. Processor",
          "seconds are those of all threads together.", "",
          "| products | seed | seconds | processor seconds | int8 | int4 | int2 |", "|---|---|---|---|---|---|---|"]
for gemm in ("openblas", "onednn-bf16"):
    of = [row for row in rows if row[0] == gemm]
    for row in of:
        s, u, *ppl = map(float, row[2:])
        lines.append(f"| {gemm} | {row[1]} | {s:.1f} | {u:.1f} | " + " | ".join(f"{p:.3f}" for p in ppl) + " |")
    mean = [sum(float(row[i]) for row in of) / len(of) for i in range(2, 7)]
    lines.append(f"| {gemm} | mean | {mean[0]:.1f} | {mean[1]:.1f} | " + " | ".join(f"{p:.3f}" for p in mean[2:]) + " |")
begin, end = "<!-- gemm: begin -->", "<!-- gemm: end -->"
section = "\n".join([begin, *lines, "", end])
text = open(results).read() if os.path.exists(results) else "# Results\n"
if begin in text:
    text = re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: section, text, flags=re.S)
else:
    text = text.rstrip("\n") + "\n\n" + section + "\n"
open(results, "w").write(text)
END
echo "written: $results" >&2
