#!/usr/bin/env python3
"""Prints the section "Recipes" of tests/bench/RESULTS.md out of the JSON files of scripts/bench-recipes.sh, and writes it into
RESULTS unless that is empty; and what tables of other benches have in common with it (standard library only).

usage: bench_recipes_table.py WORK RESULTS
"""
import collections
import datetime
import json
import pathlib
import re
import sys

from bench_machine import DISTURBED, machine_line

BEGIN, END = "<!-- recipes: begin -->", "<!-- recipes: end -->"
WIDTHS = (8, 7, 6, 5, 4, 3, 2)
RECIPES = ("best", "blocks", "paper", "rtn")
NAMES = {"blocks": "best --no-refit"}
TITLES = {"smollm2": "SmolLM2-135M-Instruct", "smollm2-16": "SmolLM2-135M-Instruct, 16 sequences",
          "smollm2-written": "SmolLM2-135M-Instruct, and text that it wrote",
          "smollm2-fresh": "SmolLM2-135M-Instruct, 544 sequences", "gemma3": "Gemma 3 270M",
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


def rows_under_headings(lines):
    """How many rows there are in tables under each heading by what their first cell says."""
    found, heading = collections.Counter(), ""
    for line, following in zip(lines, [*lines[1:], ""]):
        if line.startswith("#"):
            heading = line.strip("# ")
        elif line.startswith("|") and "|---" not in (line[:4], following[:4]):
            found[heading, line.split("|")[1].strip()] += 1
    return found


def write_section(results, lines):
    """Puts lines, which begin and end with the section's markers, in its place in a file, or at the end of it. A row of a table
    that is there may change but not go: if a heading had more rows that begin with the same cell (written by hand, say, or out
    of another work folder), nothing is written, and the program ends."""
    begin, end, section = lines[0], lines[-1], "\n".join(lines)
    old = results.read_text() if results.exists() else "# Results\n"
    if begin in old and end in old:
        lost = rows_under_headings(old[old.index(begin): old.index(end)].splitlines()) - rows_under_headings(lines)
        if lost:
            print(section)
            named = "".join(f"\n  {heading}: {count} beginning with '{cell}'" for (heading, cell), count in lost.items())
            sys.exit(f"{results} is left as it is: the new section, on standard output, lacks rows of the old one:{named}\n"
                     f"Take them out, or below '{end}', and run this again.")
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


def minutes(run):
    """Of a run that was made at one go, and seen not to be disturbed."""
    state = run.get("state") or {}
    if state.get("blocks") or state.get("widths") or run.get("others", 1.0) > DISTURBED:
        return "-"
    return f"{run['seconds'] / 60:.1f}"


class Row:
    """One master: its files in the work folder, NAME-RECIPE or NAME-RECIPE@LABEL and what follows."""

    def __init__(self, work, name, recipe, label):
        self.label = label
        self.stem = work / f"{name}-{recipe}{'@' + label if label else ''}"
        self.title = NAMES.get(recipe, recipe) + (f", {label}" if label else "")
        self.run = load(self.file(".json"))
        self.provenance = load(self.stem / "matquant.json")
        if self.provenance is None:
            sys.exit(f"{sys.argv[0]}: {self.stem}, which {self.file('.json').name} is of, is gone; remove {self.stem.name}*.json")
        self.learned = recipe != "rtn"
        self.calibration = {of["file"] for of in self.provenance.get("calibration", {}).get("files", [])}

    def file(self, end):
        return self.stem.with_name(self.stem.name + end)

    def files(self):
        """Of its measurements, those that there are."""
        ends = [".json", *(f"-w{width}{kind}.json" for width in WIDTHS for kind in ("", "-tasks"))]
        return [self.file(end) for end in ends if self.file(end).exists()]

    def measured(self, width, kind=""):
        return load(self.file(f"-w{width}{kind}.json"))


def rows_of(work, name):
    """Of a model: recipe by recipe, the newest first."""
    found = []
    for recipe in RECIPES:
        pattern = re.compile(rf"{re.escape(name)}-{recipe}(?:@([\w.+]+))?\.json")
        matches = filter(None, (pattern.fullmatch(path.name) for path in sorted(work.iterdir())))
        rows = [Row(work, name, recipe, match.group(1) or "") for match in matches]
        found += sorted(rows, key=lambda row: date_of(row.file(".json")), reverse=True)
    return found


def check_alike(full, result, path):
    """That both were measured on the same text or on the same items of tasks."""
    def on(one):
        text = (pathlib.Path(one["text"]).name, one["windows"], one["seq_len"]) if "text" in one else ()
        return text, [(task["task"], task["items"]) for task in one.get("tasks", [])]

    if on(result) != on(full):
        sys.exit(f"{sys.argv[0]}: {path.name} was measured on {on(result)}, and full precision on {on(full)}")


def model_table(rows, full):
    lines = [
        f"Full precision: perplexity {full['perplexity']:.2f} "
        f"({full['windows']} windows of {full['seq_len']} tokens of {pathlib.Path(full['text']).name}).",
        "",
        "| recipe | calibration | " + " | ".join(f"int{w}" for w in WIDTHS) + " | minutes | peak memory, MiB (predicted) |",
        "|---|" + "---|" * (len(WIDTHS) + 3),
    ]
    for row in rows:
        widths = [row.measured(width) for width in WIDTHS]
        for width, result in zip(WIDTHS, widths):
            if result:
                check_alike(full, result, row.file(f"-w{width}.json"))
        cells = [number(w and w["perplexity"]) for w in widths]
        peak, predicted = row.run["memory_peak"] / 2**20, row.run["memory_predicted"] / 2**20
        made = row.provenance["recipe"]
        text = f"{made['samples']} x {made['seq_len']} x {made['epochs']} epochs" if row.learned else "none"
        text += refitted(row.provenance) + products(row.run)
        lines.append(f"| {row.title} | {text} | " + " | ".join(cells)
                     + f" | {minutes(row.run)} | {peak:.0f} ({predicted:.0f}) |")
    return lines + [""]


def tasks_row(title, result):
    mean = result["mean"]
    cells = [f"{100 * mean[key]:.1f} ± {100 * mean[key + '_stderr']:.1f}" for key in ("acc", "acc_norm")]
    cells += [f"{100 * task['acc']:.1f}" for task in result["tasks"]]
    return f"| {title} | " + " | ".join(cells) + " |"


def tasks_table(rows, full):
    """Of the widths that were measured on tasks."""
    if full is None:
        return []
    tasks = [task["task"] for task in full["tasks"]]
    items = ", ".join(f"{task['task']} ({task['items']})" for task in full["tasks"])
    lines = [
        f"Zero-shot accuracy in %, the mean with its standard error; items: {items}.",
        "",
        "| | mean, acc | mean, acc_norm | " + " | ".join(tasks) + " |",
        "|---|" + "---|" * (len(tasks) + 2),
        tasks_row("full precision", full),
    ]
    for row in rows:
        for width in WIDTHS:
            result = row.measured(width, "-tasks")
            if result:
                check_alike(full, result, row.file(f"-w{width}-tasks.json"))
                lines.append(tasks_row(f"{row.title}: int{width}", result))
    return lines + [""]


def runs_lines(work, names, rows):
    """By what program, on what machine and when: of each label, if there is more than one."""
    labels = sorted({row.label for row in rows})
    lines = []
    for label in labels:
        mine = [row for row in rows if row.label == label]
        tools = ", ".join(sorted({row.provenance["tool"] for row in mine}))
        paths = [path for row in mine for path in row.files()]
        if label == labels[0]:
            paths += [work / f"{name}-full{kind}.json" for name in names for kind in ("", "-tasks")]
        who = f"- {label or 'no label'}: " if len(labels) > 1 or label else ""
        lines.append(f"{who}{tools}; {measured(paths)}.")
    return lines


def main():
    work, results = pathlib.Path(sys.argv[1]), sys.argv[2]
    names = sorted({p.name[: -len("-full.json")] for p in work.glob("*-full.json")}, reverse=True)
    models = {name: rows_of(work, name) for name in names}
    rows = sum(models.values(), [])
    calibration = ", ".join(sorted(set().union(*(row.calibration for row in rows)))) or "nothing"
    lines = [
        BEGIN,
        "## Recipes",
        "",
        f"Perplexity of masters at every width: all linears, groups of 64, calibrated on {calibration}",
        "(sequences x tokens x epochs); no loss of the blocks saw 7, 6, 5 and 3 bits. Made by `scripts/bench-recipes.sh`.",
        f"Minutes: \"-\" where a run was interrupted, others used more than {100 * DISTURBED:.0f} % of the processors, or nobody",
        "looked whether they did.",
        "",
        *runs_lines(work, names, rows),
        "",
    ]
    for name, of_model in models.items():
        lines += [f"### {TITLES.get(name, name)}", "", *model_table(of_model, load(work / f"{name}-full.json")),
                  *tasks_table(of_model, load(work / f"{name}-full-tasks.json"))]
    lines.append(END)
    if results:
        write_section(pathlib.Path(results), lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
