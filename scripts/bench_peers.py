#!/usr/bin/env python3
"""The runs and the table of scripts/bench-peers.sh, which says how to call it (standard library only)."""
import argparse
import datetime
import pathlib
import shutil
import sys

from bench_quantizers import TEXTS, WINDOW, add_options, evaluate, kept, matquant, number, peer, prepare, wrapped_lines
from bench_recipes_table import load, write_section
from bench_machine import DISTURBED, machine

BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"
GROUP_SIZE = 64
OURS = {  # what they are called, and their options
    "matquant": ("matquant, blocks and refit", ["--recipe", "best", "--refit-bits", "8,4,2"]),  # those of the table
    "blocks": ("matquant without refit", ["--recipe", "best", "--no-refit"]),
    "fast": ("matquant --fast", ["--recipe", "best", "--fast"]),
    "rtn": ("matquant --recipe rtn", ["--recipe", "rtn"]),
}
DEFAULT_ITERS = 200  # AutoRound's own, for the runs autoround-*-default
RUNS = ("full", *OURS, "autoround-8", "autoround-4", "autoround-4-default", "autoround-2", "autoround-2-default", "gptq-4")
WIDTHS = (8, 4, 2)


def fast_lines(found, work):
    """--fast takes less of the text than there is for all."""
    made = load(work / "master-fast" / "matquant.json") if "fast" in found else None
    if made is None:
        return []
    sequences = max(width["trained_tokens"] for width in made["refit"]["widths"]) // made["recipe"]["seq_len"]
    return [f"Of these tokens `--fast` takes {made['recipe']['samples']} sequences for the blocks, and {sequences} for the"
            " refit of the narrowest width."]


def from_tax(name, options):
    """The run NAME of bench-tax.sh in groups of GROUP_SIZE, if it made the same from as many calibration tokens; or None."""
    run = "master" if name == "matquant" else name
    paths = sorted(options.tax.glob(f"*-g{GROUP_SIZE}-{run}.json")) if options.tax else []
    report = load(paths[0]) if paths else None
    if report is None or "seconds" not in report:
        return None
    said = report.get("provenance")
    sequences = said["calibration"]["tokens"] // options.seq_len if said else report["sequences"]
    if sequences != options.samples:
        return None
    widths = WIDTHS if run == "master" else (report["bits"],)
    found = {bits: load(paths[0].with_name(f"{paths[0].stem}-w{bits}.json")) for bits in widths}
    if None in found.values():
        return None
    if any(result["windows"] != options.windows or pathlib.Path(result["text"]).name != options.text.name
           for result in found.values()):
        sys.exit(f"bench-peers: {paths[0].stem} was measured on another text")
    return {"package": OURS["matquant"][0], **report, "perplexity": {bits: found[bits]["perplexity"] for bits in widths}}


def measure(name, ids, options):
    given = from_tax(name, options)
    if given:
        return {**given, "threads": options.threads, "samples": options.samples, "seq_len": options.seq_len,
                "windows": options.windows}
    if name == "full":
        return {"perplexity": {"full": evaluate(options, options.model)["perplexity"]}, "text": options.text.name}
    if name in OURS:  # every width of one master
        title, recipe = OURS[name]
        folder = options.work / f"master-{name}"
        words = [*recipe, "--group-size", GROUP_SIZE]
        report = {"package": title, **matquant(options, ids if name != "rtn" else None, folder, words)}
        perplexity = {bits: evaluate(options, folder, bits)["perplexity"] for bits in WIDTHS}
    else:
        tool, bits, *default = name.split("-")
        folder = options.work / name
        report = peer(options, tool, ids, folder, int(bits), GROUP_SIZE, iters=DEFAULT_ITERS if default else None)
        perplexity = {bits: evaluate(options, folder)["perplexity"]}
        shutil.rmtree(folder)  # the model in float32; the numbers are what is kept
    return {
        **report,
        "threads": options.threads,
        "samples": options.samples,
        "seq_len": options.seq_len,
        "perplexity": perplexity,
        "windows": options.windows,
        "date": datetime.date.today().isoformat(),
    }


# --- table --------------------------------------------------------------------------------------------------------


def row(title, results):
    perplexity = {}
    for result in results:
        perplexity.update(result["perplexity"])
    cells = [number(perplexity[str(bits)]) if str(bits) in perplexity else "" for bits in WIDTHS]
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
        f"{options.title}: the same {some['samples']} x {some['seq_len']} calibration tokens, groups of {GROUP_SIZE} (scale and"
        f" offset), {some['threads']} thread(s).",
        "AutoRound and GPTQ make one width a run; each of matquant's rows is one run for all widths. Perplexity on",
        f"{TEXTS.get(found['full']['text'], found['full']['text'])} ({some['windows']} windows of {WINDOW} tokens; full"
        f" precision {number(found['full']['perplexity']['full'])}), all by `matquant eval`: the",
        "peers' weights were multiplied out to float32 (AutoRound's from the codes and float16 scales of its own export;",
        "GPTQ's scales are float32). Minutes of the wall and of all processors, and the largest resident set, are of the",
        "whole process: of the peers' with loading PyTorch and writing the result. Made by `scripts/bench-peers.sh`.",
        *fast_lines(found, options.work),
        *wrapped_lines(found.values()),
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
        lines += ["", "Others used: share of the processors that was busy with something else during the run."
                  " Where it is more", "than a few percent, wall minutes say little; processor minutes are inflated too,"
                  " but less."]
    return lines + ["", END]


def title_of(name, result):
    if name.startswith("autoround"):
        return f"AutoRound {result['version']}, {result['bits']} bits, {result['iters']} iterations of {result['batch']}"
    if name.startswith("gptq"):
        return f"GPTQ (llmcompressor {result['version']}), {result['bits']} bits"
    return f"{result['package']} ({result['version']})"


def main():
    parser = argparse.ArgumentParser(prog="bench-peers.sh", description=__doc__)
    add_options(parser)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--title", default="SmolLM2-135M-Instruct")
    parser.add_argument("--runs", default=" ".join(RUNS))
    parser.add_argument("--tax", type=pathlib.Path)
    options = parser.parse_args()
    options.model = options.model or options.root / "models/smollm2"
    options.results = options.results or options.root / "tests/bench/RESULTS.md"
    ids = prepare(options, "bench-peers", options.samples)
    for name in options.runs.split():
        if name not in RUNS:
            sys.exit(f"bench-peers: no run {name}: they are {' '.join(RUNS)}")
        kept(options.work / f"{name}.json", lambda: measure(name, ids, options), "bench-peers")
    found = {name: load(options.work / f"{name}.json") for name in RUNS if (options.work / f"{name}.json").exists()}
    if "full" not in found or len(found) < 2:
        sys.exit("bench-peers: nothing to compare yet: the run full and another are needed")
    lines = table(found, options)
    write_section(options.results, lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
