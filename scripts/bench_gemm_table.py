#!/usr/bin/env python3
"""Prints the table of scripts/bench-gemm.sh out of its JSON files, and writes it into RESULTS unless that is empty.

usage: bench_gemm_table.py WORK NAME MATQUANT RESULTS SETTINGS "SEED..." BLOCK   (standard library only)
BLOCK yes: with the rates in WORK/block.
"""
import pathlib
import subprocess
import sys

from bench_recipes_table import TITLES, load, measured, number, write_section

WIDTHS = (8, 4, 2)
BACKENDS = ("openblas", "onednn-bf16")


def numbers(work, name, backend, seed, settings):
    """Seconds, processor seconds, and perplexity and KL of each width."""
    made = load(work / f"{name}-{backend}-{seed}.json")
    if f" {' '.join(settings.split())} " not in made["command"]:
        sys.exit(f"{sys.argv[0]}: {name}-{backend}-{seed} in {work} was made by: {made['command']}")
    found = [load(work / f"{name}-{backend}-{seed}-w{width}.json") for width in WIDTHS]
    return [made["seconds"], made["processor_seconds"]] + [of[what] for of in found for what in ("perplexity", "kl")]


def row(backend, seed, of):
    cells = [f"{number(of[2 + 2 * i])} ({of[3 + 2 * i]:.4f})" for i in range(len(WIDTHS))]
    return f"| {backend} | {seed} | {of[0]:.1f} | {of[1]:.1f} | " + " | ".join(cells) + " |"


def rows(work, name, seeds, settings):
    for backend in BACKENDS:
        of = [numbers(work, name, backend, seed, settings) for seed in seeds]
        for seed, values in zip(seeds, of):
            yield row(backend, seed, values)
        yield row(backend, "mean", [sum(column) / len(of) for column in zip(*of)])


def table(work, name, matquant, results, settings, seeds, block):
    work = pathlib.Path(work)
    version = subprocess.run([matquant, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    some = load(work / f"{name}-{BACKENDS[0]}-{seeds[0]}-w8.json")
    lines = [f"<!-- gemm {name}: begin -->", f"### Products of bfloat16: {TITLES.get(name, name)}", "",
             f"`quantize {settings}`.",
             f"Perplexity (KL from full precision in nats a token) on {pathlib.Path(some['text']).name}, "
             f"{some['windows']} windows of {some['seq_len']} tokens;",
             f"full precision: {number(some['reference_perplexity'])}. Processor seconds are those of all threads together. "
             "Made by `scripts/bench-gemm.sh`.", "",
             f"{version}; {measured(work.glob(f'{name}-*.json'))}.", "",
             "| products | seed | seconds | processor seconds | int8 | int4 | int2 |", "|---|---|---|---|---|---|---|",
             *rows(work, name, seeds, settings)]
    if block == "yes":
        lines += ["", "One block, 4 x 512 tokens (`bench_block 0 10 cpu`): milliseconds of processor time, and GFLOP/s of a",
                  "thread. `products'` is the rate of the bare library on the linear layers' products, `block's` the same",
                  "products' rate within the whole block.", ""]
        lines += ["    " + line.rstrip() for line in (work / "block").read_text().splitlines()]
    lines += ["", f"<!-- gemm {name}: end -->"]
    if results:
        write_section(pathlib.Path(results), lines)
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) != 8:
        sys.exit(__doc__)
    table(*sys.argv[1:6], sys.argv[6].split(), sys.argv[7])
