#!/usr/bin/env python3
"""The runs and the tables of scripts/bench-tax.sh, which says how to call it (standard library only)."""
import argparse
import datetime
import json
import pathlib
import shutil
import sys

from bench_quantizers import TEXTS, add_options, evaluate, kept, matquant, number, peer, prepare, wrapped_lines
from bench_recipes_table import TITLES, load, write_section
from bench_machine import machine

WIDTHS = (8, 4, 3, 2)
FALLBACK = 64
KINDS = {"master": "slice of the master", "ours": "dedicated", "autoround": "AutoRound, dedicated"}
RUNS = ("full", "master", *(f"{kind}-{bits}" for kind in ("ours", "autoround") for bits in WIDTHS))


class Place:
    """The files of one run at one group size."""

    def __init__(self, options, run, group_size=None):
        self.name = "-".join([options.name, *([] if group_size is None else [f"g{group_size}"]), run])
        self.work = options.work
        self.folder = options.work / self.name
        self.report = options.work / f"{self.name}.json"

    def evaluation(self, bits):
        return self.work / f"{self.name}-w{bits}.json"


# --- runs ---------------------------------------------------------------------------------------------------------


def provenance(master):
    """What a master was made with; of its blocks and files nothing."""
    said = json.loads((master / "matquant.json").read_text())
    return {key: said.get(key) for key in ("tool", "recipe", "calibration", "refit", "gemm")}


def of_ours(options, ids, place, group_size, bits):
    words = ["--recipe", "best", "--group-size", group_size, *(["--group-fallback", FALLBACK] if group_size else []),
             *(["--bits", bits] if bits else []), *options.settings.split()]
    report = matquant(options, ids, place.folder, words)
    return {**report, "provenance": provenance(place.folder), "date": datetime.date.today().isoformat()}


def given_master(options, group_size):
    """What stands for the report of a master that is there: --master, if it has this group size."""
    if options.master is None or provenance(options.master)["recipe"]["group_size"] != group_size:
        return None
    return {"given": str(options.master.resolve()), "provenance": provenance(options.master)}


def measure(options, place, folder, bits, of_master=True):
    def make():
        return evaluate(options, folder, bits if of_master else None, options.tasks.split(), options.max_items)

    kept(place.evaluation(bits), make, "bench-tax")


def master_run(options, ids, group_size):
    place = Place(options, "master", group_size)
    given = given_master(options, group_size)
    report = kept(place.report, lambda: given or of_ours(options, ids, place, group_size, None), "bench-tax")
    if given and report.get("given") != given["given"]:
        sys.exit(f"bench-tax: {place.report} is of another master: remove it and {place.name}-w*.json to begin anew")
    for bits in WIDTHS:
        measure(options, place, pathlib.Path(report.get("given", place.folder)), bits)


def dedicated_run(options, ids, group_size, bits):
    place = Place(options, f"ours-{bits}", group_size)
    kept(place.report, lambda: of_ours(options, ids, place, group_size, bits), "bench-tax")
    measure(options, place, place.folder, bits)


def autoround_run(options, ids, group_size, bits):
    place = Place(options, f"autoround-{bits}", group_size)
    if place.evaluation(bits).exists():
        return
    if not place.folder.exists():
        place.report.unlink(missing_ok=True)
    kept(place.report, lambda: {**peer(options, "autoround", ids, place.folder, bits, group_size, FALLBACK),
                                "date": datetime.date.today().isoformat()}, "bench-tax")
    measure(options, place, place.folder, bits, of_master=False)
    shutil.rmtree(place.folder)  # the model in float32; the numbers are what is kept


def run_all(options, ids):
    runs = options.runs.split()
    for run in runs:
        if run not in RUNS:
            sys.exit(f"bench-tax: no run {run}: they are {' '.join(RUNS)}")
    if "full" in runs:
        kept(Place(options, "full").report,
             lambda: evaluate(options, options.model, None, options.tasks.split(), options.max_items), "bench-tax")
    for group_size in options.group_sizes:
        for run in runs:
            kind, _, bits = run.partition("-")
            if kind == "master":
                master_run(options, ids, group_size)
            elif kind == "ours":
                dedicated_run(options, ids, group_size, int(bits))
            elif kind == "autoround":
                autoround_run(options, ids, group_size, int(bits))


# --- tables -------------------------------------------------------------------------------------------------------


def results(options, group_size, bits):
    """The three kinds' evaluations of a width, None where it was not measured."""
    runs = ("master", f"ours-{bits}", f"autoround-{bits}")
    return [load(Place(options, run, group_size).evaluation(bits)) for run in runs]


def check_alike(full, rows):
    """All were measured on the same text and, those that were measured on tasks, on the same items."""
    def of(result):
        return pathlib.Path(result["text"]).name, result["windows"], result["seq_len"]

    def items(result):
        return [(task["task"], task["items"]) for task in result.get("tasks", [])]

    for group_size, bits, found in rows:
        for result in filter(None, found):
            if of(result) != of(full) or items(result) not in ([], items(full)):
                sys.exit(f"bench-tax: group size {group_size}, {bits} bits: not measured on what full precision was:"
                         f" {of(result)} {items(result)}, {of(full)} {items(full)}")


def accuracy(result):
    mean = result["mean"]
    return f"{100 * mean['acc']:.1f} ± {100 * mean['acc_stderr']:.1f}"


def table(options, full, rows, cell):
    """rows: (group size, width, evaluations); cell: what of an evaluation stands in the table."""
    lines = ["| group size | bits | full precision | " + " | ".join(KINDS.values()) + " |", "|---|---|---|---|---|---|"]
    for group_size, bits, found in rows:
        cells = [cell(result) if result else "-" for result in (full, *found)]
        lines.append(f"| {group_size or 'a row'} | {bits} | " + " | ".join(cells) + " |")
    return lines


def setting(report):
    """What a model of ours was made with, without its width."""
    said = report["provenance"]
    recipe, refit = said["recipe"], said["refit"]
    words = f"blocks on {recipe['samples']} x {recipe['seq_len']} tokens, {recipe['epochs']} epochs"
    words += f"; refit, {refit['epochs']} epoch(s)" if refit else "; no refit"
    words += f"; {said['calibration']['tokens']:,} tokens of {said['calibration']['files'][0]['file']}"
    written = said["calibration"].get("written_tokens")
    words += f", and in the refit {written:,} that the model wrote, going on from pieces of these" if written else ""
    if len(recipe["bits"]) > 1:
        words += "; " + ", ".join(f"int{bits}" for bits in recipe["bits"]) + " with lambda "
        words += ", ".join(f"{value:g}" for value in recipe["lambda"])
    return words


def settings_lines(options):
    """Who was made with what: one line for each setting, of masters, of dedicated models, of AutoRound's."""
    lines = []
    for kind, title in KINDS.items():
        told = {}
        for group_size in options.all_group_sizes:
            for run in [run for run in RUNS if run.partition("-")[0] == kind]:
                report = load(Place(options, run, group_size).report)
                if report is None:
                    continue
                if kind == "autoround":
                    said = (f"AutoRound {report['version']}, {report['sequences']} sequences, {report['iters']} iterations of"
                            f" {report['batch']}")
                else:
                    said = setting(report)
                told.setdefault(said, set()).add("a row" if group_size == 0 else str(group_size))
        for said, sizes in told.items():
            where = f" (group size {', '.join(sorted(sizes))})" if len(told) > 1 else ""
            lines.append(f"- {title}{where}: {said}.")
    return lines


def dates(options):
    found = sorted({datetime.date.fromtimestamp(path.stat().st_mtime).isoformat()
                    for path in options.work.glob(f"{options.name}-*.json")})
    return found[0] if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


def matquant_versions(options):
    reports = [load(path) for path in sorted(options.work.glob(f"{options.name}-g*.json"))]
    made = {report["provenance"]["tool"] for report in reports if "provenance" in report}
    return ", ".join(sorted(made)) or "matquant"


def section(options):
    full = load(Place(options, "full").report)
    rows = [(group_size, bits, results(options, group_size, bits))
            for group_size in options.all_group_sizes for bits in WIDTHS]
    rows = [row for row in rows if any(row[2])]
    if full is None or not rows:
        sys.exit("bench-tax: nothing to compare yet: the run full and another are needed")
    check_alike(full, rows)
    text = pathlib.Path(full["text"]).name
    lines = [
        f"<!-- tax {options.name}: begin -->",
        f"### Slices beside models made for one width: {TITLES.get(options.name, options.name)}",
        "",
        f"Perplexity on {TEXTS.get(text, text)} ({full['windows']} windows of {full['seq_len']} tokens). The dedicated models",
        "are made by `--bits R` alone and by AutoRound, in the same groups"
        + (f" ({FALLBACK} where the group size does not divide a row)." if any(row[0] not in (0, FALLBACK) for row in rows)
           else "."),
        "AutoRound's were multiplied out to float32 from the codes and float16 scales of its own export; all were measured by",
        "`matquant eval`. A master that trains 8, 4 and 2 bits has its 3-bit slice in no loss. Made by `scripts/bench-tax.sh`.",
        *wrapped_lines(load(Place(options, f"autoround-{bits}", group_size).report)
                       for group_size in options.all_group_sizes for bits in WIDTHS),
        "",
        *settings_lines(options),
        "",
        f"{matquant_versions(options)}; {machine()['cpu']}, {machine()['cores']} cores; {dates(options)}.",
        "",
        *table(options, full, rows, lambda result: number(result["perplexity"])),
        "",
    ]
    if full.get("tasks"):
        tasks = ", ".join(f"{task['task']} ({task['items']})" for task in full["tasks"])
        rows = [(group_size, bits, [result if result and result.get("tasks") else None for result in found])
                for group_size, bits, found in rows]
        rows = [row for row in rows if any(row[2][:2])]  # of ours
        if rows:
            lines += [f"Mean zero-shot accuracy in %, with its standard error: {tasks}.", "",
                      *table(options, full, rows, accuracy), ""]
    return lines + [f"<!-- tax {options.name}: end -->"]


def main():
    parser = argparse.ArgumentParser(prog="bench-tax.sh", description=__doc__)
    add_options(parser)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tasks", default="")
    parser.add_argument("--max-items", type=int)
    parser.add_argument("--group-sizes", default="64 128 0")
    parser.add_argument("--runs", default=" ".join(RUNS))
    parser.add_argument("--master", type=pathlib.Path)
    parser.add_argument("--sequences", type=int)
    parser.add_argument("--settings", default="")
    options = parser.parse_args()
    options.name, _, folder = options.model.partition("=")
    if not folder:
        parser.error("--model wants NAME=FOLDER")
    options.model = pathlib.Path(folder)
    options.group_sizes = [int(size) for size in options.group_sizes.split()]
    ids = prepare(options, "bench-tax", options.sequences or options.samples)
    if options.master and not any(given_master(options, size) for size in options.group_sizes):
        parser.error(f"--master: its group size is none of {options.group_sizes}")
    run_all(options, ids)
    # The table has all that the work folder has, also of group sizes that this call did not name.
    there = {int(path.name[len(options.name) + 2 :].partition("-")[0])
             for path in options.work.glob(f"{options.name}-g[0-9]*.json")}
    options.all_group_sizes = sorted(there, key=lambda size: size or 1 << 30)
    lines = section(options)
    if options.results:
        write_section(options.results, lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
