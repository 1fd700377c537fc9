#!/usr/bin/env python3
"""Prints the table of scripts/bench-tradeoff.sh out of its JSON files, and writes it into RESULTS unless that is empty.

usage: bench_tradeoff_table.py WORK PREFIX MATQUANT RESULTS PRESETS LAMBDA...   (standard library only)
PREFIX is NAME-blocks6 (six blocks, without the refit), NAME-whole0 (all blocks, with it) and the like; PRESETS are such as
"balanced=10,3,1 wide=40,6,1".
"""
import pathlib
import re
import subprocess
import sys

from bench_recipes_table import TITLES, load, measured, number, write_section

WIDTHS = (8, 4, 2)


def row(work, prefix, presets, which):
    found = [load(work / f"{prefix}-{which}-w{width}.json") for width in WIDTHS]
    if None in found:
        return None
    names = [name for name, weights in presets.items() if weights == which]
    title = which.replace(",", ", ") + (f" (`{'`, `'.join(names)}`)" if names else "")
    cells = [f"{number(result['perplexity'])} ({result['kl']:.4f})" for result in found]
    return f"| {title} | " + " | ".join(cells) + " |"


def settings(work, prefix, lambdas):
    """What all masters were made with: they may differ in lambda only."""
    made = [load(work / f"{prefix}-{which}" / "matquant.json")["recipe"] for which in lambdas]
    of = {(m["samples"], m["seq_len"], m["epochs"], m["group_size"]) for m in made}
    if len(of) != 1:
        sys.exit(f"{sys.argv[0]}: the masters in {work} were made with different settings: {sorted(of)}")
    samples, length, epochs, group = of.pop()
    groups = f"groups of {group}" if group else "one group a row"
    return f"{samples} x {length} calibration tokens, {epochs} epochs, {groups}"


def main():
    work, prefix, matquant, results = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    presets = dict(word.split("=") for word in sys.argv[5].split())
    rows = {which: row(work, prefix, presets, which) for which in sys.argv[6:]}
    rows = {which: line for which, line in rows.items() if line}
    if not rows:
        sys.exit(f"{sys.argv[0]}: nothing was measured yet")
    name, parts, blocks = re.fullmatch(r"(.*)-(blocks|whole)(\d+)", prefix).groups()
    some = load(work / f"{prefix}-{next(iter(rows))}-w{WIDTHS[0]}.json")
    version = subprocess.run([matquant, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    lines = [
        f"<!-- tradeoff {prefix}: begin -->",
        f"### The trade-off: {TITLES.get(name, name)}, {f'its first {blocks} blocks' if int(blocks) else 'all blocks'},"
        f" {'with' if parts == 'whole' else 'without'} the refit",
        "",
        f"Perplexity (KL from full precision in nats a token) on {pathlib.Path(some['text']).name},",
        f"{some['windows']} windows of {some['seq_len']} tokens; full precision: {number(some['reference_perplexity'])}.",
        f"{settings(work, prefix, rows)}. Made by `scripts/bench-tradeoff.sh`.",
        "",
        f"{version}; {measured(work.glob(f'{prefix}-*.json'))}.",
        "",
        "| lambda of 8, 4, 2 bits | " + " | ".join(f"int{width}" for width in WIDTHS) + " |",
        "|---|" + "---|" * len(WIDTHS),
        *rows.values(),
        "",
        f"<!-- tradeoff {prefix}: end -->",
    ]
    if results:
        write_section(pathlib.Path(results), lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
