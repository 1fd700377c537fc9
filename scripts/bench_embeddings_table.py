#!/usr/bin/env python3
"""Prints the table of scripts/bench-embeddings.sh out of its JSON files, and writes it into RESULTS unless that is empty.

usage: bench_embeddings_table.py WORK NAME PREFIX FOLDER MATQUANT RESULTS   (standard library only)
"""
import pathlib
import subprocess
import sys

from bench_recipes_table import TITLES, load, measured, number, write_section

WIDTHS = (8, 4, 2)
FORMATS = {"mlx": "MLX", "gguf": "GGUF"}


def megabytes(count):
    return f"{count / 1e6:.1f}"


def row(work, prefix, kind, least):
    title = f"`nested`, {least} bits or more" if kind == "nested" else f"`{kind}`"
    cells = []
    for width in WIDTHS:
        cells.append(number(load(work / f"{prefix}-{kind}-w{width}.json")["perplexity"]))
        cells += [megabytes(load(work / f"{prefix}-{kind}-{form}{width}.json")["bytes_written"]) for form in FORMATS]
    return f"| {title} | " + " | ".join(cells) + " |"


def main():
    work, name, prefix, folder = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], pathlib.Path(sys.argv[4])
    matquant, results = sys.argv[5], sys.argv[6]
    full = load(work / f"{name}-full.json")
    recipe = load(work / f"{prefix}-nested" / "matquant.json")["recipe"]
    version = subprocess.run([matquant, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    group = f"groups of {recipe['group_size']}" if recipe["group_size"] else "one group a row"
    heads = [f"int{width}: {what}" for width in WIDTHS for what in ("perplexity", *(f"{form}, MB" for form in FORMATS.values()))]
    lines = [
        f"<!-- embeddings {prefix}: begin -->",
        f"### Quantized embeddings: {TITLES.get(name, name)}",
        "",
        f"Recipe {recipe['name']}, {group}: perplexity on {pathlib.Path(full['text']).name} ({full['windows']} windows of",
        f"{full['seq_len']} tokens) of the slices' numbers, and what all of a slice takes on disk. The model as it was:",
        f"{number(full['perplexity'])}, {megabytes(weights)} MB of weights. Made by `scripts/bench-embeddings.sh`.",
        "",
        f"{version}; {measured([work / f'{name}-full.json', *work.glob(f'{prefix}-*.json')])}.",
        "",
        "| `--embeddings` | " + " | ".join(heads) + " |",
        "|---|" + "---|" * len(heads),
        *(row(work, prefix, kind, recipe.get("embeddings_min_bits")) for kind in ("keep", "8", "nested")),
        "",
        f"<!-- embeddings {prefix}: end -->",
    ]
    if results:
        write_section(pathlib.Path(results), lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
