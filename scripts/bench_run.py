#!/usr/bin/env python3
"""The measurements of scripts/bench.sh, which says how to call it (standard library only).

A rate is the best of several repeats; the learning loop's is that of the fastest block. Each measurement says what share
of the processors that it may use was busy with something else meanwhile.
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

from bench_machine import DISTURBED, Others, command, machine, wait_for_quiet
from bench_refit import print_refit, refit
from bench_shapes import DEFAULTS, find_shapes

GOAL, GOAL_BF16 = 0.85, 0.6  # of (b)/(a)
SLICE_GOAL = 2.0
FORMATS = ("mlx", "gguf", "compressed-tensors", "gptq", "safetensors", "matquant")
WAYS = ("gflops_one_call", "gflops_call_a_thread", "gflops_bf16")


# --- learning -----------------------------------------------------------------------------------------------------


def learn(shape, threads, options):
    """One run of bench_learn, and what follows from it."""
    by_cpu = options.clock == "cpu" and threads == 1
    settings = {"threads": threads, "repeats": options.repeats, "cpu": int(by_cpu), "bf16": int(options.gemm == "bf16"),
                **DEFAULTS, **shape.settings}
    others = Others()
    program = command(options.build / "tests/bench/bench_learn", shape.folder, shape.calib, options.work / "never",
                      *(f"{name}={value}" for name, value in settings.items()))
    run = json.loads(program.printed)
    run["others"] = others.share()
    run.update(summary(run))
    return run


def seconds_of(block):
    return sum(phase["seconds"] for phase in block.values())


def summary(run):
    """Rates and shares of the fastest block."""
    block = min(run["blocks"], key=seconds_of)
    seconds = seconds_of(block)
    learning = [block[name] for name in ("teacher", "train", "advance")]

    def total(field, phases=learning):
        return sum(phase[field] for phase in phases)

    needed = total("linear_flops_needed") + total("attention_flops_needed")
    bare = total("linear_flops_needed") / total("bare_seconds") * 1e-9
    train, advance, teacher = block["train"], block["advance"], block["teacher"]
    parts = {
        "products of linears": total("linear_products"),
        "products of attention": total("attention_products"),
        "attention's elementwise": total("attention") - total("attention_products"),
        "norms, activation, packing": total("block") - total("attention") - total("linear_products"),
        "fake quantization, Adam": train["values"],
        "loss": train["loss"],
        "rest of the step": train["seconds"] - train["block"] - train["values"] - train["loss"],
        "rest of teacher": teacher["seconds"] - teacher["block"],
        "start (clip search)": block["start"]["seconds"],
        "measuring": block["measure"]["seconds"] + advance["loss"],
        "rest of advancing": advance["seconds"] - advance["block"] - advance["loss"],
        "finish": block["finish"]["seconds"],
        "reading, writing": block["read"]["seconds"] + block["write"]["seconds"],
    }
    cpu = sum(phase["cpu_seconds"] for phase in block.values())
    return {
        "bare_gflops": bare,
        "loop_gflops": needed / seconds * 1e-9,
        "ratio": needed / seconds * 1e-9 / bare,
        "loop_gflops_by_cpu_time": needed / cpu * run["settings"]["threads"] * 1e-9,
        "linear_share_of_bare": total("bare_seconds") / total("linear_products"),
        "rates": {direction: rate_of(run["products"], direction) for direction in ("forward", "input_grad", "weight_grad")},
        "block_seconds": seconds,
        "shares": {name: part / seconds for name, part in parts.items()},
        **at_defaults(run["settings"], block, bare),
    }


def rate_of(products, direction):
    """GFLOP/s over all linears in one direction, each in the fastest way."""
    chosen = [product for product in products if product["direction"] == direction]
    sizes = [product["out"] * product["in"] for product in chosen]
    times = [size / max(product[way] for way in WAYS if way in product) for size, product in zip(sizes, chosen)]
    return sum(sizes) / sum(times)


def at_defaults(settings, block, bare):
    """The ratio that the same times give at the default number of tokens, for a run with fewer."""
    if all(settings[name] == value for name, value in DEFAULTS.items()):
        return {}
    measured, all_measured = (min(16, count) for count in (settings["samples"], DEFAULTS["samples"]))
    factor = dict.fromkeys(block, 1.0)
    factor["teacher"] = factor["advance"] = DEFAULTS["samples"] / settings["samples"]
    factor["measure"] = all_measured / measured
    factor["train"] = factor["teacher"] * DEFAULTS["epochs"] / settings["epochs"]
    needed = sum(factor[name] * (phase["linear_flops_needed"] + phase["attention_flops_needed"])
                 for name, phase in block.items())
    seconds = sum(factor[name] * phase["seconds"] for name, phase in block.items())
    return {"ratio_at_defaults": needed / seconds * 1e-9 / bare}


def verdict(run):
    """A disturbed run decides nothing: when others came between, (a) may have suffered more than (b)."""
    if run["others"] > DISTURBED and not run["settings"]["cpu"]:
        return "disturbed"
    return "reached" if run["ratio"] >= goal_of(run) else "missed"


def goal_of(run):
    return GOAL_BF16 if run["settings"]["bf16"] else GOAL


def print_learn(runs):
    def row(name, *cells):
        print(f"{name:26}" + "".join(f"{cell:>17}" for cell in cells))

    def field(name, key, form):
        row(name, *(form.format(key(run)) for run in runs))

    print("\nLearning a block. GFLOP/s; (a) the bare library on the shapes of the calibration pass,")
    print("(b) the whole loop, counting only what the algorithm needs.")
    row("", *(run["shape"] for run in runs))
    field("threads", lambda run: run["settings"]["threads"], "{}")
    field("products", lambda run: "bfloat16" if run["settings"]["bf16"] else "float32", "{}")
    field("samples x tokens x epochs", lambda run: "{samples} x {seq-len} x {epochs}".format(**run["settings"]), "{}")
    field("(a) best of", lambda run: 2 * ((run["settings"]["repeats"] + 1) // 2), "{}")
    field("  forward", lambda run: run["rates"]["forward"], "{:.0f}")
    field("  input gradient", lambda run: run["rates"]["input_grad"], "{:.0f}")
    field("  weight gradient", lambda run: run["rates"]["weight_grad"], "{:.0f}")
    field("(a)", lambda run: run["bare_gflops"], "{:.0f}")
    field("(b)", lambda run: run["loop_gflops"], "{:.0f}")
    field("(b)/(a)", lambda run: run["ratio"], "{:.3f}")
    field("goal", lambda run: f">= {goal_of(run)} {verdict(run)}", "{}")
    if any("ratio_at_defaults" in run for run in runs):
        field("(b)/(a) for {samples} x {seq-len} x {epochs}".format(**DEFAULTS),
              lambda run: "{:.3f}".format(run.get("ratio_at_defaults", run["ratio"])), "{}")
    field("(b) by processor time", lambda run: run["loop_gflops_by_cpu_time"], "{:.0f}")
    field("linears in the loop / bare", lambda run: run["linear_share_of_bare"], "{:.3f}")
    field("timed by", lambda run: "processor" if run["settings"]["cpu"] else "wall", "{}")
    field("others on the machine", lambda run: 100 * run["others"], "{:.0f} %")
    field("seconds of the block", lambda run: run["block_seconds"], "{:.2f}")
    print("Share of these, %:")
    for name in runs[0]["shares"]:
        field("  " + name, lambda run: 100 * run["shares"][name], "{:.1f}")
    print("Memory, MiB:")
    field("  predicted", lambda run: run["memory_predicted"] / 2**20, "{:.0f}")
    field("  allocated at most", lambda run: run["memory_peak"] / 2**20, "{:.0f}")
    field("  resident at most", lambda run: run["max_rss"] / 2**20, "{:.0f}")


# --- the other verbs ----------------------------------------------------------------------------------------------


def memory(options):
    """A whole run of the demo model beside what --dry-run says of it."""
    data = options.root / "data"
    words = [options.build / "matquant", "quantize", data / "demo-model", "--calib", data / "demo-calib.jsonl.gz",
             "--group-size", "64", "--json", "--quiet", "-o", options.work / "demo-master", "--force"]
    predicted = json.loads(command(*words, "--dry-run").printed)["memory_predicted"]
    program = command(*words)
    run = json.loads(program.printed)
    return {"predicted": predicted, "peak": run["memory_peak"], "max_rss": program.max_rss, "seconds": run["seconds"]}


def tree_size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def best(times, function):
    return min(function() for _ in range(times))


def files(name, shape, options):
    """A master of recipe rtn: eval, slice and verify of it, beside copies of the same bytes."""
    matquant, master, work = options.build / "matquant", options.work / f"{name}-master", options.work
    command(matquant, "quantize", shape.folder, "-o", master, "--force", "--recipe", "rtn", "--group-size", "64", "--quiet",
            "--json")
    size, times, result = tree_size(master), options.repeats, {}
    others = Others()

    def timed(*words):
        return command(*words).seconds

    def copy(sync):
        shutil.rmtree(work / "copy", ignore_errors=True)
        start = time.monotonic()
        command("cp", "-r", master, work / "copy")
        if sync:
            command("sync", *(path for path in (work / "copy").iterdir()))
        return time.monotonic() - start

    copied = best(times, lambda: copy(True))
    result["cp"] = size / best(times, lambda: copy(False)) / 1e6
    result["cp, sync"] = size / copied / 1e6
    result["verify"] = size / best(times, lambda: timed(matquant, "verify", master, "--json", "--quiet")) / 1e6
    slices = {}
    for form in FORMATS:
        for bits in (8, 4, 2):
            output = work / ("slice.gguf" if form == "gguf" else "slice")
            words = (matquant, "slice", master, "-o", output, "--force", "--bits", bits, "--format", form, "--json",
                     "--quiet")
            runs = []
            for _ in range(times):  # into a fresh folder each time, as the copy: deleting the old one is not slicing
                shutil.rmtree(output, ignore_errors=True)
                output.unlink(missing_ok=True)
                runs.append(command(*words))
            report = json.loads(runs[0].printed)
            moved, seconds = report["bytes_read"] + report["bytes_written"], min(run.seconds for run in runs)
            slices[f"{form}, {bits} bits"] = {
                "rate": moved / seconds / 1e6, "exact": not report["inexact"],
                "times_cp": seconds / (copied * moved / (2 * size)),
                "processor_seconds": min(run.processor_seconds for run in runs)}
        shutil.rmtree(work / "slice", ignore_errors=True)
    (work / "slice.gguf").unlink(missing_ok=True)
    shutil.rmtree(work / "copy", ignore_errors=True)
    rates = {f"{key}, MB/s": value for key, value in result.items()}
    if shape.text is not None:
        for what, words in (("plain", [shape.folder]), ("master at 4 bits", [master, "--bits", "4"])):
            words = [matquant, "eval", *words, "--text", shape.text, "--windows", "4", "--json", "--quiet"]

            def seconds():
                run = json.loads(command(*words).printed)
                return run["seconds"] / run["tokens"]

            rates[f"eval of the {what}, tokens/s"] = 1 / best(min(times, 3), seconds)
    shutil.rmtree(master)
    shutil.rmtree(work / "slice", ignore_errors=True)
    return {"bytes": size, "rates": rates, "slices": slices, "others": others.share()}


TOKENIZERS = """
import sys, time, tokenizers
tokenizer = tokenizers.Tokenizer.from_file(sys.argv[1])
text = open(sys.argv[2], newline="").read()
best = 1e9
for _ in range(int(sys.argv[3])):
    start = time.perf_counter()
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    best = min(best, time.perf_counter() - start)
print(tokenizers.__version__, len(text.encode()) / 1e6 / best, len(ids))
"""


def peer_python():
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    venv = pathlib.Path(os.environ.get("MATQUANT_PEERS_VENV") or cache / "matquant/peers-venv")  # as scripts/bench-lib.sh has it
    for python in (venv / "bin/python", "python3"):
        try:
            if subprocess.run([python, "-c", "import tokenizers"], capture_output=True).returncode == 0:
                return python
        except OSError:
            pass
    return None


def tokenizer(shape, options):
    text = options.text or shape.text
    ours = []
    for _ in range(options.repeats):
        printed = command(options.build / "tests/bench/bench_tokenizer", shape.folder, text).printed
        count, rate = re.search(r"(\d+) tokens in .* ([\d.]+) MB/s", printed).groups()
        ours.append(float(rate))
    result = {"ours": max(ours), "tokens": int(count), "text": text.name}
    python = peer_python()
    if python is not None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        version, rate, tokens = command(python, "-c", TOKENIZERS, shape.folder / "tokenizer.json", text,
                                        options.repeats).printed.split()
        result.update(peer=float(rate), peer_version=version, same_count=int(tokens) == int(count))
    return result


# --- results ------------------------------------------------------------------------------------------------------


def flat(value, prefix=""):
    """The numbers of nested objects, by path; rows of arrays are left out."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield from flat(member, f"{prefix}{key}/")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield prefix[:-1], value


def comparable(results):
    numbers = {}
    products = results.get("settings", {}).get("gemm", "f32")  # rates of different products are no ratio
    for run in results.get("learn", []):
        keys = ("bare_gflops", "loop_gflops", "ratio", "block_seconds", "step_median", "memory_peak", "rates")
        numbers.update(flat({key: run[key] for key in keys if key in run},
                            f"{run['shape']}, {products}, {run['settings']['threads']} threads/"))
    for run in results.get("refit", []):
        numbers.update(flat({key: run[key] for key in ("tokens_a_second", "gflops") if key in run},
                            f"refit, {run['shape']}, {products}, {run['threads']} threads/"))
    for part in ("memory", "files", "tokenizer"):
        numbers.update(flat(results.get(part, {}), part + "/"))
    return {name: value for name, value in numbers.items() if not name.endswith(("others", "bytes", "tokens"))}


def print_comparison(old, new):
    print(f"\nBeside {old['version']} of {old['date']} on {old['machine']['cpu']}:")
    before, now = comparable(old), comparable(new)
    if not any(name in before for name in now if " threads/" in name):
        print("  no blocks or refit that both measured with the same products and threads")
    for name in now:
        if before.get(name):
            print(f"  {name:60} {before[name]:>14.5g} {now[name]:>14.5g} {now[name] / before[name]:>8.3f}")


def print_rest(results):
    if "memory" in results:
        run = results["memory"]
        print("\nMemory of a whole run, demo model, MiB: " + ", ".join(
            f"{name} {run[key] / 2**20:.1f}"
            for name, key in (("predicted", "predicted"), ("allocated at most", "peak"), ("resident at most", "max_rss"))))
    for name, run in results.get("files", {}).items():
        print(f"\nFiles, {name}: a master of {run['bytes'] / 1e6:.1f} MB, warm cache, best of {results['repeats']}, "
              f"others {100 * run['others']:.0f} %")
        for key, value in run["rates"].items():
            print(f"  {key:36} {value:>10.0f}")
        print("  Slices: MB/s of what is read and written together, time beside cp and sync of as many bytes (goal: <= "
              f"{SLICE_GOAL:.0f}),\n  and processor seconds of all threads")
        for key, value in run["slices"].items():
            print(f"    {key:34} {value['rate']:>10.0f} {value['times_cp']:>8.2f} {value['processor_seconds']:>8.2f}"
                  f"  {'exact' if value['exact'] else 'fitted'}")
    for name, run in results.get("tokenizer", {}).items():
        peer = (f"tokenizers {run['peer_version']} {run['peer']:.1f}" if "peer" in run
                else "tokenizers not measured (no Python that has it)")
        print(f"\nTokenizer, {name}, {run['text']}, one thread, MB/s: ours {run['ours']:.1f}, {peer}"
              + ("" if run.get("same_count", True) else " (and they differ in the number of tokens)"))


def save(results, options):
    """After each measurement: a bench that is stopped keeps what it has."""
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")


def take_up(results, parts, options):
    """Takes whole parts of an earlier run of the same day, program, settings and machine out of its JSON; those that are left
    to do."""
    old = json.loads(options.out.read_text()) if options.out.exists() else {}
    same = all(old.get(key) == results[key] for key in ("version", "date", "repeats", "settings"))
    if not same or old["machine"]["cpu"] != results["machine"]["cpu"]:
        return parts
    results.update(old)
    return [part for part in parts if part not in old]


def main():
    parser = argparse.ArgumentParser(prog="bench.sh", description=__doc__)
    parser.add_argument("--root", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--build", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--shapes", default="demo smollm2 llama7b")
    parser.add_argument("--threads", default="1 2")
    parser.add_argument("--parts", default="learn refit memory files tokenizer")
    parser.add_argument("--repeats", type=int, default=5)  # fewer flatter: bare products in bfloat16 come to their best late
    parser.add_argument("--text", type=pathlib.Path, help="for the tokenizers (default: data/demo-eval.txt)")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--compare", type=pathlib.Path)
    parser.add_argument("--wait", type=float, default=0.0)
    parser.add_argument("--gemm", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    options.work = options.work or options.root / "build/bench-work"
    options.out = options.out or options.root / "build/bench.json"
    options.work.mkdir(parents=True, exist_ok=True)
    # Two threads that the kernel leaves on one processor halve a bare rate, and everything looks well beside it.
    os.environ.setdefault("OMP_PROC_BIND", "true")
    os.environ.setdefault("OMP_PLACES", "cores")
    old = json.loads(options.compare.read_text()) if options.compare else None

    parts, shapes = options.parts.split(), find_shapes(options)
    version = command(options.build / "matquant", "--version").printed.strip()
    results = {"version": version, "date": datetime.date.today().isoformat(), "machine": machine(),
               "repeats": options.repeats,
               "settings": {name: getattr(options, name) for name in ("shapes", "threads", "gemm", "clock")}}
    if options.resume:
        parts = take_up(results, parts, options)
    if "learn" in parts:
        results["learn"] = []
        for shape in shapes.values():
            for threads in options.threads.split():
                wait_for_quiet(options.wait)
                print(f"bench: {shape.title}, {threads} thread(s)", file=sys.stderr)
                results["learn"].append({"shape": shape.title, **learn(shape, int(threads), options)})
                save(results, options)
        results["machine"]["blas"] = results["learn"][0]["blas"]
    if "refit" in parts:
        results["refit"] = []
        for name, shape in shapes.items():
            for threads in options.threads.split() if name != "llama7b" else ():  # of one block it is not a model's
                wait_for_quiet(options.wait)
                print(f"bench: refit of {shape.title}, {threads} thread(s)", file=sys.stderr)
                results["refit"].append(refit(shape, int(threads), options))
                save(results, options)
    if "memory" in parts:
        results["memory"] = memory(options)
        save(results, options)
    for part, function in (("files", files), ("tokenizer", None)):
        if part in parts:
            results[part] = {}
            for name, shape in shapes.items():
                wait_for_quiet(options.wait)
                # Of the demo model one would see the start of a program; the one block has no tokenizer.
                if part == "files" and name != "demo" and shape.text is not None:
                    results[part][shape.title] = files(name, shape, options)
                elif part == "tokenizer" and shape.text is not None:
                    results[part][shape.title] = tokenizer(shape, options)
                save(results, options)
    blas = [results["machine"]["blas"]] if "blas" in results["machine"] else []
    print("; ".join([version, *blas, f"{results['machine']['cpu']}, {results['machine']['cores']} cores",
                     results["date"]]))
    if results.get("learn"):
        print_learn(results["learn"])
    if results.get("refit"):
        print_refit(results["refit"], results.get("learn", []))
    print_rest(results)
    if old:
        print_comparison(old, results)
    print(f"\nAll numbers: {options.out}")


if __name__ == "__main__":
    main()
