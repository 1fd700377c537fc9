#!/usr/bin/env python3
"""Writes the section of one model of scripts/bench-paper.sh's table out of its JSON files, into RESULTS or to stdout.

usage: bench_paper_table.py WORK NAME MATQUANT [RESULTS]   (standard library only)
"""
import pathlib
import subprocess
import sys

from bench_recipes_table import TITLES, load, measured, write_section

WIDTHS = (8, 4, 2, 6, 3)
SCOPES = {"ffn": "Feed-forward networks only", "all": "All linears"}
ROWS = {
    "sliced": "int8, sliced",
    "dedicated": "dedicated, a model for each width",
    "matquant": "MatQuant",
    "single": "single precision (int2's loss only)",
    "extra": "extra precision",
    "codistill": "co-distillation (8>2)",
    "let": "MatQuant with LET",
}


def with_error(value, error, digits):
    """± its standard error, which what was measured by programs of before may not have."""
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def cell(result):
    """Log perplexity, and the tasks' mean accuracy in percent where there were tasks."""
    if result is None:
        return "-"
    text = with_error(result["nll"], result.get("nll_stderr"), 3)
    if not result.get("tasks"):
        return text
    mean = result["mean"]
    return f"{text} / {with_error(100 * mean['acc'], 100 * mean['acc_stderr'] if 'acc_stderr' in mean else None, 1)}"


def scope_table(work, name, scope):
    found = [row for row in ROWS if (work / f"{name}-{scope}-{row}-w8.json").exists()]
    if not found:
        return []
    lines = [f"#### {SCOPES[scope]}", "",
             "| | " + " | ".join(f"int{width}" for width in WIDTHS) + " |", "|---|" + "---|" * len(WIDTHS)]
    for row in found:
        cells = [cell(load(work / f"{name}-{scope}-{row}-w{width}.json")) for width in WIDTHS]
        lines.append(f"| {ROWS[row]} | " + " | ".join(cells) + " |")
    return lines + [""]


def settings(work, name):
    """What the masters were made with: the same for all of them, or a line that says so is not written."""
    masters = [load(path) for path in sorted(work.glob(f"{name}-*/matquant.json"))]
    made = [master["recipe"] for master in masters]
    files = sorted({of["file"] for master in masters for of in master["calibration"]["files"]})
    of = {(m["samples"], m["seq_len"], m["epochs"], m["batch"], m["group_size"], m["loss"], m["rate_group"]) for m in made}
    if len(of) != 1:
        sys.exit(f"{sys.argv[0]}: the masters in {work} were made with different settings: {sorted(of)}")
    samples, length, epochs, batch, group, loss, rate = of.pop()
    return f"{samples} x {length} tokens of {', '.join(files)}, {epochs} epochs, {batch} a step, rate {rate:.2g}, loss {loss}, " + \
        (f"groups of {group}" if group else "one group a row")


def main():
    work, name, matquant = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    full = load(work / f"{name}-full.json")
    version = subprocess.run([matquant, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    tasks = ", ".join(f"{task['task']}: {task['items']} items" for task in full.get("tasks", []))
    lines = [
        f"<!-- paper {name}: begin -->",
        f"### The MatQuant paper's table: {TITLES.get(name, name)}",
        "",
        f"Log perplexity ({full['windows']} windows of {full['seq_len']} tokens of {pathlib.Path(full['text']).name})"
        + (f" / mean zero-shot accuracy in % ({tasks})" if tasks else "")
        + f"; full precision: {cell(full)}.",
        "± is one cell's standard error; rows were measured on the same text and items, so that it is not that of differences.",
        f"Recipe paper, {settings(work, name)}; int6 and int3 were in no loss but the dedicated models'.",
        "Made by `scripts/bench-paper.sh`.",
        "",
        f"{version}; {measured(work.glob(f'{name}-*.json'))}.",
        "",
    ]
    for scope in SCOPES:
        lines += scope_table(work, name, scope)
    lines.append(f"<!-- paper {name}: end -->")
    if len(sys.argv) > 4:
        write_section(pathlib.Path(sys.argv[4]), lines)
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
