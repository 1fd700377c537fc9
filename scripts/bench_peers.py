#!/usr/bin/env python3
"""The runs and the table of scripts/bench-peers.sh, which says how to call it (standard library only)."""
import argparse
import datetime
import json
import pathlib
import shutil
import sys

from bench_run import DISTURBED, Others, command, machine

BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"
EPOCHS, BATCH, SEQ_LEN, GROUP_SIZE, WINDOW = 4, 4, 512, 64, 1024
TEXTS = {"wikitext2-test.raw": "WikiText-2 test"}
OURS = {  # what they are called, and their options
    "matquant": ("matquant, blocks and refit", ["--recipe", "best"]),
    "blocks": ("matquant without refit", ["--recipe", "best", "--no-refit"]),
    "rtn": ("matquant --recipe rtn", ["--recipe", "rtn"]),
}
RUNS = ("full", *OURS, "autoround-8", "autoround-4", "autoround-2", "gptq-4")
WIDTHS = (8, 4, 2)


def evaluate(folder, options, bits=None):
    words = [options.build / "matquant", "eval", folder, "--text", options.text, "--windows", options.windows, "--seq-len",
             WINDOW, "--threads", options.threads, "--json", "--quiet"]
    return json.loads(command(*words, *(["--bits", bits] if bits else [])).printed)["perplexity"]


def ours(name, ids, options):
    """One run, and every width of its master."""
    title, recipe = OURS[name]
    master = options.work / f"master-{name}"
    words = [options.build / "matquant", "quantize", options.model, "-o", master, "--force", *recipe, "--group-size",
             GROUP_SIZE, "--threads", options.threads, "--json", "--quiet"]
    if name != "rtn":
        words += ["--calib", ids, "--samples", options.samples, "--seq-len", SEQ_LEN, "--epochs", EPOCHS, "--batch", BATCH]
    run = command(*words)
    version = command(options.build / "matquant", "--version").printed.split()[-1]
    report = {"package": title, "version": version, "quantizer_seconds": json.loads(run.printed)["seconds"]}
    return run, report, lambda: {bits: evaluate(master, options, bits) for bits in WIDTHS}


def peer(name, bits, ids, options):
    folder = options.work / f"{name}-{bits}"
    words = [options.python, options.root / "scripts/bench_peers_run.py", name, options.model, ids, folder, "--bits", bits,
             "--group-size", GROUP_SIZE, "--iters", options.iters, "--batch", BATCH, "--threads", options.threads]
    run = command(*words)
    report = json.loads(run.printed.strip().splitlines()[-1])

    def perplexities():
        result = {bits: evaluate(folder, options)}
        shutil.rmtree(folder)  # the model in float32; the numbers are what is kept
        return result

    return run, report, perplexities


def measure(name, ids, options):
    if name == "full":
        return {"perplexity": {"full": evaluate(options.model, options)}, "text": options.text.name}
    others = Others()
    if name in OURS:
        run, report, perplexities = ours(name, ids, options)
    else:
        tool, bits = name.split("-")
        run, report, perplexities = peer(tool, int(bits), ids, options)
    share = others.share()
    return {
        **report,
        "seconds": run.seconds,
        "processor_seconds": run.processor_seconds,
        "max_rss": run.max_rss,
        "others": share,
        "threads": options.threads,
        "samples": options.samples,
        "perplexity": perplexities(),
        "windows": options.windows,
        "date": datetime.date.today().isoformat(),
    }


# --- table --------------------------------------------------------------------------------------------------------


def number(value):
    return "" if value is None else f"{value:.2f}" if value < 1000 else f"{value:,.0f}"


def row(title, results):
    perplexity = {}
    for result in results:
        perplexity.update(result["perplexity"])
    cells = [number(perplexity.get(str(bits))) for bits in WIDTHS]
    seconds, processor = (sum(result[key] for result in results) for key in ("seconds", "processor_seconds"))
    others = sum(result["others"] * result["seconds"] for result in results) / seconds
    cells += [f"{seconds / 60:.1f}", f"{processor / 60:.1f}", f"{max(result['max_rss'] for result in results) / 2**20:.0f}",
              f"{100 * others:.0f} %"]
    return f"| {title} | " + " | ".join(cells) + " |"


def table(found, options):
    some = next(result for name, result in found.items() if name != "full")
    lines = [
        BEGIN,
        "## Beside other quantizers",
        "",
        f"{options.title}: the same {some['samples']} x {SEQ_LEN} calibration tokens, groups of {GROUP_SIZE} (scale and"
        f" offset), {some['threads']} thread(s).",
        "AutoRound and GPTQ make one width a run; each of matquant's rows is one run for all widths. Perplexity on",
        f"{TEXTS.get(found['full']['text'], found['full']['text'])} ({some['windows']} windows of {WINDOW} tokens; full"
        f" precision {number(found['full']['perplexity']['full'])}), all by `matquant eval`: the",
        "peers' weights were multiplied out to float32 (AutoRound's from the codes and float16 scales of its own export;",
        "GPTQ's scales are float32). Minutes of the wall and of all processors, and the largest resident set, are of the",
        "whole process: of the peers' with loading PyTorch and writing the result. Made by `scripts/bench-peers.sh`.",
        "",
        f"{machine()['cpu']}, {machine()['cores']} cores; {max(r['date'] for n, r in found.items() if n != 'full')}.",
        "",
        "| | " + " | ".join(f"int{bits}" for bits in WIDTHS)
        + " | minutes | processor minutes | memory, MiB | others used |",
        "|---|" + "---|" * (len(WIDTHS) + 4),
    ]
    for name in RUNS[1:]:
        if name in found:
            lines.append(row(title_of(name, found[name]), [found[name]]))
    rounds = [found[f"autoround-{bits}"] for bits in WIDTHS if f"autoround-{bits}" in found]
    if len(rounds) == len(WIDTHS):
        lines.append(row("AutoRound, the three runs together", rounds))
    disturbed = any(found[name].get("others", 0) > DISTURBED for name in found)
    if disturbed:
        lines += ["", "Others used: share of the machine's processors that was busy with something else during the run."
                  " Where it is more", "than a few percent, wall minutes say little; processor minutes are inflated too,"
                  " but less."]
    return "\n".join(lines + ["", END])


def title_of(name, result):
    if name.startswith("autoround"):
        return f"AutoRound {result['version']}, {result['bits']} bits, {result['iters']} iterations of {result['batch']}"
    if name.startswith("gptq"):
        return f"GPTQ (llmcompressor {result['version']}), {result['bits']} bits"
    return f"{result['package']} ({result['version']})"


def write_section(path, section):
    old = path.read_text() if path.exists() else "# Results\n"
    if BEGIN in old and END in old:
        new = old[: old.index(BEGIN)] + section + old[old.index(END) + len(END):]
    else:
        new = old.rstrip("\n") + "\n\n" + section + "\n"
    path.write_text(new)


def main():
    parser = argparse.ArgumentParser(prog="bench-peers.sh", description=__doc__)
    for name in ("root", "build", "python"):
        parser.add_argument("--" + name, type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--calib", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--title", default="SmolLM2-135M-Instruct")
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("--runs", default=" ".join(RUNS))
    parser.add_argument("--iters", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--windows", type=int, default=32)
    options = parser.parse_args()
    options.model = options.model or options.root / "models/smollm2"
    options.work = options.work or options.root / "build/bench-peers"
    options.results = options.results or options.root / "tests/bench/RESULTS.md"
    options.iters = options.iters or EPOCHS * options.samples // BATCH
    options.work.mkdir(parents=True, exist_ok=True)

    ids = options.work / "ids.npy"
    if not ids.exists():
        command(options.python, options.root / "scripts/bench_peers_run.py", "ids", options.model, options.calib, ids,
                "--samples", options.samples, "--seq-len", SEQ_LEN)
    for name in options.runs.split():
        path = options.work / f"{name}.json"
        if name not in RUNS:
            sys.exit(f"bench-peers: no run {name}: they are {' '.join(RUNS)}")
        if not path.exists():
            print(f"bench-peers: {name}", file=sys.stderr)
            result = json.dumps(measure(name, ids, options), indent=1)
            path.with_suffix(".part").write_text(result + "\n")
            path.with_suffix(".part").rename(path)
    found = {name: json.loads((options.work / f"{name}.json").read_text())
             for name in RUNS if (options.work / f"{name}.json").exists()}
    if "full" not in found or len(found) < 2:
        sys.exit("bench-peers: nothing to compare yet: the run full and another are needed")
    section = table(found, options)
    write_section(options.results, section)
    print(section)


if __name__ == "__main__":
    main()
