#!/usr/bin/env python3
"""Writes the section "Recipes" of tests/bench/RESULTS.md out of the JSON files of scripts/bench-recipes.sh.

usage: bench_recipes_table.py WORK RESULTS MATQUANT   (standard library only)
"""
import datetime
import json
import pathlib
import subprocess
import sys

from bench_machine import machine_line

BEGIN, END = "<!-- recipes: begin -->", "<!-- recipes: end -->"
WIDTHS = (8, 7, 6, 5, 4, 3, 2)
NAMES = {"blocks": "best --no-refit"}
TITLES = {"smollm2": "SmolLM2-135M-Instruct", "smollm2-16": "SmolLM2-135M-Instruct, 16 sequences",
          "smollm2-written": "SmolLM2-135M-Instruct, and text that it wrote", "gemma3": "Gemma 3 270M",
          "gemma3-16": "Gemma 3 270M, 16 sequences", "demo": "the demo model",
          "smollm2-rows": "SmolLM2-135M-Instruct, a row a group",
          "smollm2-blocks6": "SmolLM2-135M-Instruct, its first 6 blocks"}


def load(path):
    return json.loads(path.read_text()) if path.exists() and path.stat().st_size else None


def date_of(path):
    """The day of a measurement, which those of before do not say: theirs is that of the file."""
    return load(path).get("date") or datetime.date.fromtimestamp(path.stat().st_mtime).isoformat()


def measured(paths):
    """The machines on which measurements were made (this one, where they do not say), and the days."""
    paths = [path for path in paths if load(path)]
    machines = sorted({load(path).get("machine") or machine_line() for path in paths})
    days = sorted(map(date_of, paths))
    return "; ".join(machines) + "; " + (days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}")


def number(value):
    return "-" if value is None else f"{value:.2f}" if value < 1000 else f"{value:,.0f}"


def write_section(results, lines):
    """Puts lines, which begin and end with the section's markers, in its place in a file, or at the end of it."""
    begin, end, section = lines[0], lines[-1], "\n".join(lines)
    old = results.read_text() if results.exists() else "# Results\n"
    if begin in old and end in old:
        new = old[: old.index(begin)] + section + old[old.index(end) + len(end):]
    else:
        new = old.rstrip("\n") + "\n\n" + section + "\n"
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(new)


def refitted(provenance):
    """What the refit was given: its widths, and the tokens of the one that had most."""
    widths = provenance.get("refit", {}).get("widths", [])
    if not widths:
        return ""
    names = ", ".join(str(width["bits"]) for width in widths)
    tokens = max(width["trained_tokens"] for width in widths)
    return f"; refit of {names} on {tokens:,} tokens"


def products(run):
    """What made the products of learning, as --gemm names it."""
    return f"; {run['gemm'].split(' ')[0]}" if run.get("gemm") else ""


def model_table(work, name):
    full = load(work / f"{name}-full.json")
    lines = [
        f"### {TITLES.get(name, name)}",
        "",
        f"Full precision: perplexity {full['perplexity']:.2f} "
        f"({full['windows']} windows of {full['seq_len']} tokens).",
        "",
        "| recipe | calibration | " + " | ".join(f"int{w}" for w in WIDTHS) + " | minutes | peak memory, MiB (predicted) |",
        "|---|" + "---|" * (len(WIDTHS) + 3),
    ]
    for recipe in ("best", "blocks", "paper", "rtn"):
        run = load(work / f"{name}-{recipe}.json")
        if run is None:
            continue
        widths = [load(work / f"{name}-{recipe}-w{w}.json") for w in WIDTHS]
        cells = [number(w and w["perplexity"]) for w in widths]
        peak, predicted = run["memory_peak"] / 2**20, run["memory_predicted"] / 2**20
        provenance = load(work / f"{name}-{recipe}" / "matquant.json")
        made = provenance["recipe"]
        text = "none" if recipe == "rtn" else f"{made['samples']} x {made['seq_len']} x {made['epochs']} epochs"
        text += refitted(provenance) + products(run)
        lines.append(f"| {NAMES.get(recipe, recipe)} | {text} | " + " | ".join(cells)
                     + f" | {run['seconds'] / 60:.1f} | {peak:.0f} ({predicted:.0f}) |")
    return lines + [""]


def main():
    work, results, matquant = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    names = sorted({p.name[: -len("-full.json")] for p in work.glob("*-full.json")}, reverse=True)
    version = subprocess.run([matquant, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    lines = [
        BEGIN,
        "## Recipes",
        "",
        "Perplexity on WikiText-2 test of masters at every width: all linears, groups of 64, calibrated on Wikipedia text",
        "(sequences x tokens x epochs); no loss of the blocks saw 7, 6, 5 and 3 bits. Made by `scripts/bench-recipes.sh`.",
        "",
        f"{version}; {measured(work.glob('*.json'))}.",
        "",
    ]
    for name in names:
        lines += model_table(work, name)
    write_section(results, lines + [END])


if __name__ == "__main__":
    main()
